"""Reads a CSV table of path, label and, optionally, patient and session."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stageproof.runtime.errors import DatasetError
from stageproof.runtime.labels import LABELS, canonical_label
from stageproof.train.data.ids import Ids, numbered, session_numbers
from stageproof.train.data.samples import Samples
from stageproof.train.data.tables import column, read_table

SUFFIXES = {".csv", ".tsv"}


def from_table(path: Path) -> Samples:
    """The slices listed in the table at `path`, with files relative to its folder.

    Raises DatasetError for a table without paths or labels, an unknown class, or files that do not exist.
    """
    header, rows = read_table(path, "a list of slices")
    names = {kind: column(kind, header) for kind in ("path", "label", "patient", "session")}
    missing = [kind for kind in ("path", "label") if names[kind] is None]
    if missing:
        raise DatasetError(
            f"{path} has no column {' and no '.join(missing)}; its header is {', '.join(header) or 'nothing'}. "
            "Expected path, label and, optionally, patient and session."
        )
    if not rows:
        raise DatasetError(f"{path} lists no slice: it has a header and no rows.")
    where, label = str(names["path"]), str(names["label"])
    files = [path.parent / row[where] for row in rows]
    _check_files(path, [row[where] for row in rows], files)
    return Samples(
        images=files,
        labels=_labels(path, label, rows),
        names=[row[where] for row in rows],
        groups=None,
        source=str(path),
        ids=_ids(path, names["patient"], names["session"], rows),
    )


def _check_files(path: Path, named: list[str], files: list[Path]) -> None:
    if twice := len(named) - len(set(named)):
        again = next(name for at, name in enumerate(named) if name in named[:at])
        raise DatasetError(f"{path} lists {twice} files twice, such as {again!r}. Expected one row for each slice.")
    gone = [name for name, file in zip(named, files, strict=True) if not name or not file.is_file()]
    if gone:
        raise DatasetError(
            f"{path}: {len(gone)} of {len(files)} files do not exist, such as {gone[0]!r}. Paths are relative to "
            f"{path.parent}, or absolute."
        )


def _labels(path: Path, name: str, rows: list[dict[str, str]]) -> np.ndarray:
    """(N,) int64 indices in LABELS."""
    known = {row[name]: canonical_label(row[name]) for row in rows}
    unknown = [repr(value) for value, label in known.items() if label is None]
    if unknown:
        more = "" if len(unknown) <= 5 else f" and {len(unknown) - 5} more"
        raise DatasetError(
            f"{path}: {', '.join(unknown[:5])}{more} in the column {name!r} is not a class. Expected the names "
            f"{', '.join(LABELS)}, in any common spelling; numbers are not accepted, because their order is unknown."
        )
    return np.array([LABELS.index(str(known[row[name]])) for row in rows], np.int64)


def _ids(path: Path, patient: str | None, session: str | None, rows: list[dict[str, str]]) -> Ids | None:
    if patient is None:
        return None
    subjects = [row[patient] for row in rows]
    empty = [at for at, subject in enumerate(subjects) if not subject]
    if len(empty) == len(rows):
        return None
    if empty:
        raise DatasetError(
            f"{path}, row {empty[0] + 2}: the column {patient!r} is empty, as in {len(empty)} of {len(rows)} rows. "
            "Give the patient of every slice, or leave the column out."
        )
    if len(set(subjects)) < 2:
        raise DatasetError(
            f"{path} has the same patient for all slices in {patient!r}. Expected one id for each patient."
        )
    sessions = [row[session] or None for row in rows] if session is not None else [None] * len(rows)
    description = f"column {patient!r} of {path.name}" + (f", sessions from {session!r}" if session is not None else "")
    return Ids("table", description, numbered(subjects), session_numbers(subjects, sessions))
