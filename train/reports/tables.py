"""Tables of an evaluation, the same in the report and on the cards. Every figure is looked up through `Facts`."""

from __future__ import annotations

from dataclasses import dataclass

from stageproof.runtime.labels import LABELS
from stageproof.train.reports.calibration_text import studies_by
from stageproof.train.reports.facts import Facts
from stageproof.train.reports.formatting import (
    CALIBRATION,
    OF_CLASS,
    ROWS,
    count_heads,
    format_figure,
    joined,
    number,
    patient_count,
)


@dataclass(frozen=True)
class Table:
    """Cells in rows, under heads, with a note below; plain text throughout."""

    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def metrics(found: Facts) -> Table:
    """Metrics of slices, and of patients where they are known, one a row. found: `evaluation.json`."""
    levels = ["slices", *(["patients"] if found.known("patients") else [])]
    counted = count_heads(found("data"))
    rows = []
    for name, path, share in ROWS:
        figures = [found(f"{level}.{path}") for level in levels]
        cells = [format_figure(figure, share) for figure in figures]
        rows.append((name, *cells, *[patient_count(figures[-1])] * len(counted)))
    notes = [studies_by(found("calibration"))] if len(levels) > 1 else []
    if classes := found("slices.counted"):
        notes.append(
            f"Macro metrics and balanced accuracy are means over {joined(classes)}; the balanced accuracy of random "
            f"predictions is {number(found('slices.chance'), True)}."
        )
    return Table(("metric", *levels, *counted), tuple(rows), " ".join(notes))


def classes(found: Facts, level: str) -> Table:
    """Metrics of each class against all others. found: `evaluation.json`. level: ``slices`` or ``patients``."""
    counted, rows = count_heads(found("data")), []
    for label in LABELS:
        cells = [format_figure(found(f"{level}.classes.{label}.{path}"), share) for _, path, share in OF_CLASS]
        people = patient_count(found(f"{level}.classes.{label}.recall"))
        rows.append((label, *cells, *[people] * len(counted)))
    return Table((f"class, by {level}", *(name for name, _, _ in OF_CLASS), *counted), tuple(rows))


def class_note(unit: str) -> str:
    """What the last column of `classes` counts. unit: ``patients`` or ``groups``."""
    return (
        f"The last column counts the {unit} of the class. Precision is estimated from the {unit} predicted as the "
        f"class, specificity from all {unit} of other classes, an AUC from both."
    )


def calibration(found: Facts) -> Table:
    """Calibration of slices before and after the temperature, and the change. found: `evaluation.json`."""
    sides = [side for side in ("before", "after", "change") if found.known(f"calibration.{side}")]
    rows = [
        (name, *(format_figure(found(f"calibration.{side}.{path}"), False) for side in sides))
        for name, path in CALIBRATION
    ]
    return Table(("slices", *sides), tuple(rows))
