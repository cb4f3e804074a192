"""`page`: the audit as one self-contained HTML page."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from stageproof.train.audit.text import class_counts, headline, statements
from stageproof.train.data.decode import Slices
from stageproof.train.data.identity.identify import Identified
from stageproof.train.data.patients.from_pixels import Patients
from stageproof.train.reports.charts.images import new_figure, svg
from stageproof.train.reports.clinical_sections import Section
from stageproof.train.reports.tables import Table
from stageproof.train.reports.templates import html

_LISTED = 20
_HEADS = {
    "unreadable": "Unreadable files",
    "ignored": "Ignored files",
    "identical": "Identical slices",
    "near": "Near-duplicates",
    "patients": "Patients",
    "groups": "Groups",
    "left out": "Left out of splits",
    "ids": "Patient ids",
    "not used": "Ids not used",
    "TWO IDS": "One patient under two ids",
    "DOUBTFUL": "Doubtful ids",
    "copies": "Augmented copies",
    "labels": "Patients with two classes",
    "too few": "Class with too few patients",
    "LEAKAGE": "Leakage",
    "leakage": "Leakage",
    "folders": "Split of the folders",
    "nearest": "Nearest-neighbour baseline",
    "linear": "Linear baseline",
    "next": "What to do",
}
"""What the page calls a finding, by its head in the terminal."""


def page(findings: dict[str, Any], slices: Slices, who: Identified, patients: Patients) -> str:
    """The HTML text. `slices`, `who` and `patients` have the same slices in the same order."""
    results = tuple((_HEADS.get(head, head), _sentence(text)) for head, text in statements(findings))
    return html(
        "train/audit/audit.html.j2",
        title="Dataset audit",
        source=str(findings["source"]),
        headline=headline(findings),
        histogram=svg(histogram(patients)),
        explained=_explained(patients),
        counts=Table(*class_counts(findings)),
        findings=Table(("finding", "result"), results),
        conflicts=_conflicts(findings["label_conflicts"] or []),
        montages=list(_montages(slices.thumbnails, who, patients)),
    )


def _montages(thumbnails: np.ndarray, who: Identified, patients: Patients) -> Iterator[tuple[str, str, bytes, str]]:
    """Heading, text, PNG and text alternative of each picture of slices."""
    if who.unit is not None:
        unit = "patient" if who.unit == "patients" else "group"
        png = _montage(thumbnails, _rows(who.groups, ~who.undecided))
        alternative = f"slices of several {who.unit}, one {unit} in each row"
        yield f"Examples of {who.unit}", f"Each row shows slices of one {unit}.", png, alternative
    for name, (heading, text) in _PAIRS.items():
        if pairs := [] if who.ids is None or who.check is None else list(getattr(who.check, name))[:8]:
            yield heading, text, _montage(thumbnails, [np.array(pair) for pair in pairs], 2), heading.lower()
    if patients.moved.any():
        png = _montage(thumbnails, _rows(patients.groups, patients.moved))
        text = "Each row shows augmented copies in one patient or group."
        yield "Examples of augmented copies", text, png, "copies in several groups"


_PAIRS = {
    "pairs": (
        "One patient with two ids",
        "Each row shows two slices with different ids that are likely to show the same patient.",
    ),
    "two_heads": (
        "Two patients with one id",
        "Each row shows two slices with the same id, at the same height, that are likely to show different patients.",
    ),
}
"""Heading and text of the pairs of slices that the check of the ids reports, by attribute."""


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def _explained(patients: Patients) -> str:
    """What the histogram shows."""
    text = "Each slice counts once, by its correlation with the slice that is most similar to it. "
    if not patients.found:
        return f"{text}Image similarity does not identify the patients of this data."
    unit = "patients" if patients.verdict == "patients" else "groups"
    return (
        f"{text}Red line: the largest correlation between slices of two {unit}. The {unit} are not identified from "
        "this correlation alone, but from each slice with the mean of other heads subtracted, and its height in the "
        "head."
    )


def _conflicts(conflicts: list[dict[str, Any]]) -> Section:
    rows = tuple(
        (
            str(one["group"]),
            ", ".join(f"{name} {count}" for name, count in one["slices"].items()),
            ", ".join(one["files"]),
        )
        for one in conflicts[:_LISTED]
    )
    more = f"audit.json lists {len(conflicts) - _LISTED} more." if len(conflicts) > _LISTED else ""
    return Section(
        "Patients with slices of two classes", "", ("group", "slices by class", "one file of each"), rows, more
    )


def histogram(patients: Patients) -> Figure:
    """The largest similarity of each slice, on the scale of Fisher's z; a line marks `below`."""
    z = np.arctanh(np.clip(patients.links, -1 + 1e-7, 1 - 1e-7))
    figure = new_figure(4.9, 3.2)
    axes = figure.subplots()
    axes.hist(z, bins=120, color="#4a7ab5")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("")
    if patients.found and np.isfinite(patients.below):
        axes.axvline(np.arctanh(min(patients.below, 1 - 1e-7)), color="#c0392b")
        unit = "patients" if patients.verdict == "patients" else "groups"
        said = f"largest correlation of slices of two {unit}: {patients.below:.4f}"
        axes.set_title(said, color="#c0392b", fontsize="medium")
    ticks = np.array([-0.5, 0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999])
    low, high = axes.get_xlim()
    ticks = ticks[(np.arctanh(ticks) >= low) & (np.arctanh(ticks) <= high)]
    axes.set_xticks(np.arctanh(ticks), [f"{tick:g}" for tick in ticks], rotation=45)
    axes.set_xlabel("correlation with the most similar other slice")
    axes.set_ylabel("number of slices")
    return figure


def _rows(groups: np.ndarray, among: np.ndarray | None = None, rows: int = 8) -> list[np.ndarray]:
    """Indices of the slices of `rows` groups spread over the dataset. among: (N,) bool, the slices to choose from."""
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
