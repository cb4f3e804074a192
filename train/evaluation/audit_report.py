"""The audit as one self-contained HTML page: findings, the gap that parts patients, and what the patients look like."""

from __future__ import annotations

import html
import io
from typing import Any

import numpy as np
from PIL import Image

from train.data.loader import Slices
from train.data.patients import Patients
from train.evaluation.findings import lines
from train.evaluation.page import document, picture, table

_LISTED = 20


def page(findings: dict[str, Any], slices: Slices, patients: Patients) -> str:
    """The HTML text. Position i of `slices` and of `patients` is the same slice."""
    gap = (
        "Every bar counts links: pairs of slices that hold the dataset together. The line is the likeness that was "
        "chosen: links to its right hold a patient together, links to its left would join two."
    )
    if not patients.found:
        gap = "No gap is clear enough to tell patients apart: the dashed line, if any, is in the clearest there is."
    groups = patients.groups if slices.groups is None else slices.groups
    parts = [
        "<h1>Dataset audit</h1>",
        f"<p>{html.escape(str(findings['source']))}</p>",
        f"<pre>{html.escape(chr(10).join(lines(findings)))}</pre>",
        _conflicts(findings["label_conflicts"]),
        f"<h2>How alike neighbours are</h2><p>{gap}</p>{picture(_plot(patients), 'distribution of links')}",
    ]
    if findings["patients"] is not None:
        parts += [
            "<h2>Some of the groups</h2><p>One patient a row.</p>",
            picture(_montage(slices.thumbnails, _rows(groups)), "slices of some groups, one group a row"),
        ]
    if patients.moved.any():
        parts += [
            "<h2>Some of the augmented copies</h2><p>Each row: copies, among the slices of one patient.</p>",
            picture(_montage(slices.thumbnails, _rows(groups, patients.moved)), "copies in some groups"),
        ]
    return document("Dataset audit", parts, "Research use only.")


def _conflicts(conflicts: list[dict[str, Any]] | None) -> str:
    if not conflicts:
        return ""
    rows = [
        [
            str(one["group"]),
            ", ".join(f"{name} {count}" for name, count in one["slices"].items()),
            ", ".join(one["files"]),
        ]
        for one in conflicts[:_LISTED]
    ]
    more = f"<p>and {len(conflicts) - _LISTED} more, in audit.json</p>" if len(conflicts) > _LISTED else ""
    listed = table(["group", "slices by class", "one file of each"], rows)
    return f"<h2>Patients with slices of two classes</h2>{listed}{more}"


def _plot(patients: Patients) -> bytes:
    """PNG: links by likeness, as a histogram on Fisher's z, with the gap."""
    from matplotlib.figure import Figure

    z = np.arctanh(np.clip(patients.links, -1 + 1e-7, 1 - 1e-7))
    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots()
    axes.hist(z, bins=120, color="#4a7ab5")
    axes.set_yscale("log")
    if np.isfinite(patients.below):
        middle = (np.arctanh(patients.below) + np.arctanh(patients.above)) / 2
        axes.axvline(middle, color="#c0392b", linestyle="-" if patients.found else "--")
        chosen = f"chosen: {np.tanh(middle):.4f}" if patients.found else "no gap is clear enough"
        axes.set_title(chosen, color="#c0392b", fontsize="medium")
    ticks = np.array([0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999])
    if len(z):
        ticks = ticks[(np.arctanh(ticks) >= z.min() - 0.1) & (np.arctanh(ticks) <= z.max() + 0.1)]
    axes.set_xticks(np.arctanh(ticks), [f"{tick:g}" for tick in ticks], rotation=45)
    axes.set_xlabel("likeness (correlation) of the two slices of a link")
    axes.set_ylabel("links")
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    return file.getvalue()


def _rows(groups: np.ndarray, among: np.ndarray | None = None, rows: int = 8) -> list[np.ndarray]:
    """Positions of the slices, or of those `among` them, of `rows` groups spread over the dataset."""
    wanted = np.ones(len(groups), bool) if among is None else among
    present = np.unique(groups[wanted])
    chosen = present[np.unique(np.linspace(0, len(present) - 1, rows).round().astype(int))]
    return [np.flatnonzero((groups == group) & wanted) for group in chosen]


def _montage(thumbnails: np.ndarray, rows: list[np.ndarray], columns: int = 12) -> bytes:
    """PNG: up to `columns` slices of each row."""
    side = thumbnails.shape[1]
    canvas = np.zeros((len(rows) * side, columns * side), np.uint8)
    for row, members in enumerate(rows):
        for column, index in enumerate(members[:columns]):
            canvas[row * side : (row + 1) * side, column * side : (column + 1) * side] = thumbnails[index]
    file = io.BytesIO()
    Image.fromarray(canvas).save(file, "PNG")
    return file.getvalue()
