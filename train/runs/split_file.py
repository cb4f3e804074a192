"""Reads `split.csv` of a run: the patient of each slice, and its side (training, validation, …)."""

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
            f"{run / SPLIT} cannot be read: {error}. It lists the held-out slices, without which the run cannot be "
            "evaluated on its own data."
        ) from error


def labels_trained_on(run: Path) -> dict[str, int]:
    """Slice name → index in LABELS of the class that the run used for it; permuted in a run with --shuffle-labels."""
    with (run / SPLIT).open(newline="", encoding="utf-8") as file:
        return {from_cell(row["name"]): LABELS.index(row["label"]) for row in csv.DictReader(file)}
