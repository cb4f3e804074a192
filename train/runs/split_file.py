"""`split.csv` of a run: which slices it was trained on, which it held out, and whose each one is."""

from __future__ import annotations

import csv
from pathlib import Path

from stageproof.runtime.errors import CheckpointError
from stageproof.runtime.labels import LABELS
from stageproof.runtime.text.escapes import from_cell

SPLIT = "split.csv"


def read_split(run: Path) -> dict[str, tuple[str, str]]:
    """Slice name → patient (or group) and side."""
    try:
        with (run / SPLIT).open(newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file)
            column = "group" if "group" in (rows.fieldnames or ()) else "patient"
            return {from_cell(row["name"]): (row[column], row["side"]) for row in rows}
    except (OSError, KeyError, UnicodeDecodeError) as error:
        raise CheckpointError(
            f"{run / SPLIT} cannot be read: {error}. It says which slices were held out; without it none of them can "
            "be told from those trained on."
        ) from error


def labels_trained_on(run: Path) -> dict[str, int]:
    """Slice name → position in LABELS of the class that the run was given for it; a control's is not the data's own."""
    with (run / SPLIT).open(newline="", encoding="utf-8") as file:
        return {from_cell(row["name"]): LABELS.index(row["label"]) for row in csv.DictReader(file)}
