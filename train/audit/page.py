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


def page(findings: dict[str, Any], slices: Slices, who: Identified, patients: Patients) -> str:
    """The HTML text. `slices`, `who` and `patients` have the same slices in the same order."""
    parts = [
        "<h1>Dataset audit</h1>",
        f"<p>{escape(str(findings['source']))}</p>",
        f'<p class="headline">{escape(headline(findings))}</p>',
        _counted(findings),
        table(["finding", "result"], [[head, _sentence(text)] for head, text in statements(findings)]),
        _conflicts(findings["label_conflicts"]),
        f"<h2>Similarity of the most similar slices</h2><p>{escape(_explained(patients))}</p>",
        picture(_plot(patients), "similarity of each slice to the most similar one"),
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
    """Description of the histogram."""
    text = "Distribution over all slices of the similarity to the most similar other slice. "
    if not patients.found:
        return f"{text}It does not identify the patients of this dataset."
    unit = "patients" if patients.verdict == "patients" else "groups"
    return (
        f"{text}The line marks the largest similarity between slices of two different {unit}. This similarity alone "
        f"does not determine the {unit}: they are identified from what remains of each slice after subtracting the "
        "mean of similar slices of other patients, and from the height of the slice in the head."
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
    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots()
    axes.hist(z, bins=120, color="#4a7ab5")
    axes.set_yscale("log")
    if patients.found and np.isfinite(patients.below):
        axes.axvline(np.arctanh(min(patients.below, 1 - 1e-7)), color="#c0392b")
        unit = "patients" if patients.verdict == "patients" else "groups"
        title = f"line: most similar slices of two different {unit}, {patients.below:.4f}"
        axes.set_title(title, color="#c0392b", fontsize="medium")
    ticks = np.array([0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999])
    if len(z):
        ticks = ticks[(np.arctanh(ticks) >= z.min() - 0.1) & (np.arctanh(ticks) <= z.max() + 0.1)]
    axes.set_xticks(np.arctanh(ticks), [f"{tick:g}" for tick in ticks], rotation=45)
    axes.set_xlabel("similarity (correlation) to the most similar slice")
    axes.set_ylabel("slices")
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
