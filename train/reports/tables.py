"""Tables of an evaluation, the same in the report and on the cards. Every figure is looked up through `Facts`."""

from __future__ import annotations

from dataclasses import dataclass

from stageproof.runtime.labels import LabelSet
from stageproof.train.reports.calibration_text import studies_by
from stageproof.train.reports.facts import Facts
from stageproof.train.reports.formatting import (
    CALIBRATION,
    class_columns,
    count_heads,
    format_figure,
    joined,
    metric_rows,
    number,
    patient_count,
    positive_classes,
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
    for name, path, share in metric_rows(found.classes):
        figures = [found(f"{level}.{path}") for level in levels]
        cells = [format_figure(figure, share) for figure in figures]
        rows.append((name, *cells, *[patient_count(figures[-1])] * len(counted)))
    notes = [studies_by(found("calibration"))] if len(levels) > 1 else []
    if classes := found("slices.counted"):
        notes.append(
            f"Macro metrics and balanced accuracy are means over {joined(classes)}; the balanced accuracy of random "
            f"predictions is {number(found('slices.chance'), True)}."
        )
    notes += [text] if (text := positive_classes(found.classes)) else []
    return Table(("metric", *levels, *counted), tuple(rows), " ".join(notes))


def classes(found: Facts, level: str) -> Table:
    """Metrics of each class against all others. found: `evaluation.json`. level: ``slices`` or ``patients``."""
    counted, columns, rows = count_heads(found("data")), class_columns(found.classes), []
    for label in found.classes.names:
        cells = [format_figure(found(f"{level}.classes", label, path), share) for _, path, share in columns]
        people = patient_count(found(f"{level}.classes", label, "recall"))
        rows.append((label, *cells, *[people] * len(counted)))
    return Table((f"class, by {level}", *(name for name, _, _ in columns), *counted), tuple(rows))


def class_note(unit: str, classes: LabelSet) -> str:
    """What the last column of `classes` counts. unit: ``patients`` or ``groups``."""
    others = f", specificity from all {unit} of other classes, an AUC from both" if len(classes) > 2 else ""
    return (
        f"The last column counts the {unit} of the class. Precision is estimated from the {unit} predicted as the "
        f"class{others}."
    )


def calibration(found: Facts) -> Table:
    """Calibration of slices before and after the temperature, and the change. found: `evaluation.json`."""
    sides = [side for side in ("before", "after", "change") if found.known(f"calibration.{side}")]
    rows = [
        (name, *(format_figure(found(f"calibration.{side}.{path}"), False) for side in sides))
        for name, path in CALIBRATION
    ]
    return Table(("slices", *sides), tuple(rows))
