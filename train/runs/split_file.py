"""Reads `split.csv` of a run: the patient of each slice, and its side (training, validation, …)."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from stageproof.runtime.errors import CheckpointError
from stageproof.runtime.system.regular_files import read_text
from stageproof.runtime.text.escapes import from_cell
from stageproof.train.runs.record import label_set_of, read_record

SPLIT = "split.csv"


def read_split(run: Path) -> dict[str, tuple[str, str]]:
    """Slice name → patient (or group; "" if unknown) and side. Raises CheckpointError for an unreadable file."""
    rows, column = _rows(run)
    return {row["name"]: (row[column], row["side"]) for row in rows}


def check_split(run: Path, names: Sequence[str], sides: Sequence[str], source: str) -> None:
    """Raise CheckpointError unless each slice is on the side that it has in the split of `run`, which is continued.

    Other patient ids give another split of the same slices. names, sides: (N,). source: the data, for the message."""
    before = {name: side for name, (_, side) in read_split(run).items()}
    if moved := [(name, side) for name, side in zip(names, sides, strict=True) if before.get(name) != side]:
        name, side = moved[0]
        raise CheckpointError(
            f"The split of {source} has changed since the run began: {len(moved)} of {len(names)} slices are on "
            f"another side, such as {name!r}: {before.get(name, 'none')}, now {side}. Restore the patient ids "
            "(groups.csv, participants.tsv, …), or start another run."
        )


def unit_of(run: Path) -> str:
    """What `read_split` returns: ``patients``, ``groups`` of one or more patients each, or ``unknown``."""
    rows, column = _rows(run)
    return "unknown" if not all(row[column] for row in rows) else f"{column}s"


def labels_trained_on(run: Path) -> dict[str, int]:
    """Slice name → index in the run's label set of the class that it used; permuted in a run with --shuffle-labels.

    Raises CheckpointError for a class that is not in the label set.
    """
    classes, rows = label_set_of(read_record(run), run), _rows(run)[0]
    if unknown := sorted({from_cell(row.get("label") or "") for row in rows} - set(classes.names)):
        raise CheckpointError(
            f"{run / SPLIT} has the class {unknown[0]!r}, expected one of {', '.join(classes.names)}. Train again."
        )
    return {row["name"]: classes.index(from_cell(row["label"])) for row in rows}


def _rows(run: Path) -> tuple[list[dict[str, str]], str]:
    """The rows, and the name of the column of patients or groups."""
    path = run / SPLIT
    try:
        rows = list(csv.DictReader(io.StringIO(read_text(path), newline="")))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CheckpointError(
            f"{path} cannot be read: {error}. It lists the held-out slices, without which the run cannot be "
            "evaluated on its own data or exported."
        ) from error
    column = next((name for name in ("group", "patient") if rows and name in rows[0]), "")
    if not column or not {"name", "side"} <= set(rows[0]):
        raise CheckpointError(f"{path} has no rows with name, patient and side. It lists the held-out slices.")
    return [{**row, "name": from_cell(row["name"])} for row in rows], column
