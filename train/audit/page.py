"""`page`: the audit as one self-contained HTML page."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

from stageproof.runtime.text.escapes import markup as escape
from stageproof.train.audit.text import headline, statements
from stageproof.train.data.decode import Slices
from stageproof.train.data.identity.identify import Identified
from stageproof.train.data.patients.from_pixels import Patients
from stageproof.train.reports.html import document, picture, table

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
    parts = [
        "<h1>Dataset audit</h1>",
        f"<p>Data: {escape(str(findings['source']))}</p>",
        f'<p class="headline">{escape(headline(findings))}</p>',
        picture(_plot(patients), "histogram: similarity of each slice to the most similar other slice"),
        f'<p class="note">{escape(_explained(patients))}</p>',
        "<h2>Slices by class</h2>",
        _counted(findings),
        "<h2>Findings</h2>",
        table(
            ["finding", "result"], [[_HEADS.get(head, head), _sentence(text)] for head, text in statements(findings)]
        ),
        _conflicts(findings["label_conflicts"]),
    ]
    if who.unit is not None:
        unit = "patient" if who.unit == "patients" else "group"
        parts += [
            f"<h2>Examples of {who.unit}</h2><p>Each row shows slices of one {unit}.</p>",
            picture(
                _montage(slices.thumbnails, _rows(who.groups, ~who.undecided)),
                f"slices of some {who.unit}, one {unit} in each row",
            ),
        ]
    for name, pairs in (("twins", _pairs(who, "pairs")), ("two heads", _pairs(who, "two_heads"))):
        if pairs:
            parts += [
                f"<h2>{_PAIRS[name][0]}</h2><p>{_PAIRS[name][1]}</p>",
                picture(_montage(slices.thumbnails, [np.array(pair) for pair in pairs], 2), _PAIRS[name][0].lower()),
            ]
    if patients.moved.any():
        parts += [
            "<h2>Examples of augmented copies</h2><p>Each row shows augmented copies in one patient or group.</p>",
            picture(_montage(slices.thumbnails, _rows(patients.groups, patients.moved)), "copies in some groups"),
        ]
    return document("Dataset audit", parts, "Research use only.")


_PAIRS = {
    "twins": (
        "One patient with two ids",
        "Each row shows two slices with different ids that are likely to show the same patient.",
    ),
    "two heads": (
        "Two patients with one id",
        "Each row shows two slices with the same id, at the same height, that are likely to show different patients.",
    ),
}


def _pairs(who: Identified, name: str) -> list[tuple[int, int]]:
    """The first pairs of slices that the check of the ids reported."""
    return [] if who.ids is None or who.check is None else list(getattr(who.check, name))[:8]


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def _counted(findings: dict[str, Any]) -> str:
    """Table of slices by class, and of patients if they are known."""
    people = findings["patients_by_class"]
    rows = [
        [name, str(count), *([str(people[name])] if people else [])]
        for name, count in findings["slices_by_class"].items()
    ]
    rows.append(["all", str(findings["slices"]), *([str(findings["patients"])] if people else [])])
    return table(["class", "slices", *(["patients"] if people else [])], rows)


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
    """PNG: histogram of the largest similarity of each slice, on the scale of Fisher's z; a line marks `below`."""
    from matplotlib.figure import Figure

    z = np.arctanh(np.clip(patients.links, -1 + 1e-7, 1 - 1e-7))
    figure = Figure(figsize=(5.3, 3.2), layout="constrained")
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
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    return file.getvalue()


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
