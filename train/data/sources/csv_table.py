"""Reads a CSV table of path, label and, optionally, patient and session."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from stageproof.runtime.errors import DatasetError
from stageproof.train.data.class_column import is_rating_column, name_classes
from stageproof.train.data.ids import check_spelling
from stageproof.train.data.sources.rows import Rows
from stageproof.train.data.tables import assert_distinct, column, columns, read_header, read_table

SUFFIXES = {".csv", ".tsv"}
_log = logging.getLogger(__name__)


def from_table(path: Path) -> Rows:
    """The slices listed in the table at `path`, with files relative to its folder. Rows without any cell are ignored.

    Raises DatasetError for a table without paths or labels, or files that do not exist.
    """
    header, rows = read_table(path, "a list of slices")
    rows = [row for row in rows if any(row.values())]  # spreadsheets write empty rows at the end
    names = {kind: column(kind, header) for kind in ("path", "label", "patient", "session")}
    for name in columns("patient", header):
        if rows and name_classes(row[name] for row in rows):  # a column named group, as in OASIS
            _log.warning(f"{path}: the column {name!r} has names of classes, and is not used for patients.")
            others = [one for one in columns("patient", header) if one != name]
            names |= {"patient": next(iter(others), None), "label": names["label"] or name}
    missing = [kind for kind in ("path", "label") if names[kind] is None]
    if missing:
        raise DatasetError(
            f"{path} has no column {' and no '.join(missing)}; its header is {', '.join(header) or 'nothing'}. "
            "Expected path, label and, optionally, patient and session."
        )
    if not rows:
        raise DatasetError(f"{path} lists no slice: it has a header and no rows.")
    assert_distinct(header, names.values(), path)
    where, label = str(names["path"]), str(names["label"])
    for kind, used in names.items():
        if others := [one for one in columns(kind, header) if used is not None and one not in names.values()]:
            _log.info(
                "%s: %ss are read from the column %r, not from %s", path, kind, used, ", ".join(map(repr, others))
            )
    listed = [_with_slashes(path.parent, row[where]) for row in rows]
    files = [path.parent / name for name in listed]
    _check_files(path, listed, files)
    subjects, origin = _subjects(path, names["patient"], names["session"], rows)
    return Rows(
        images=files,
        values=[row[label] for row in rows],
        names=listed,
        where=f"{path}, column {label!r}",
        ratings=is_rating_column(label),
        subjects=subjects,
        sessions=[row[names["session"]] or None for row in rows] if names["session"] is not None else None,
        ids_from=origin,
    )


def lists_slices(path: Path) -> bool:
    """Whether the table has columns of paths and labels."""
    header = read_header(path, "a list of slices")
    return column("path", header) is not None and column("label", header) is not None


def _with_slashes(folder: Path, name: str) -> str:
    """The path, with the backslashes of Windows replaced if there is such a file only then."""
    if "\\" in name and not (folder / name).exists():
        return name.replace("\\", "/")
    return name


def _check_files(path: Path, named: list[str], files: list[Path]) -> None:
    rows: dict[str, int] = {}
    for at, (name, file) in enumerate(zip(named, files, strict=True)):
        if (first := rows.setdefault(os.path.normpath(file), at)) != at:  # also ./a.png, and absolute paths
            also = "" if named[first] == name else f", also as {named[first]!r}"
            raise DatasetError(f"{path} lists the file {name!r} twice{also}. Expected one row for each slice.")
    gone = [name for name, file in zip(named, files, strict=True) if not name or not file.is_file()]
    if gone:
        raise DatasetError(
            f"{path}: {len(gone)} of {len(files)} files do not exist, such as {gone[0]!r}. Paths are relative to "
            f"{path.parent}, or absolute."
        )


def _subjects(
    path: Path, patient: str | None, session: str | None, rows: list[dict[str, str]]
) -> tuple[list[str] | None, str]:
    """The patient of each row, None if there is none; and the description of the columns."""
    if patient is None:
        return None, ""
    subjects = [row[patient] for row in rows]
    empty = [at for at, subject in enumerate(subjects) if not subject]
    if len(empty) == len(rows):
        return None, ""
    if empty:
        raise DatasetError(
            f"{path}, row {empty[0] + 2}: the column {patient!r} is empty, as in {len(empty)} of {len(rows)} rows. "
            "Give the patient of every slice, or leave the column out."
        )
    if len(set(subjects)) < 2:
        raise DatasetError(
            f"{path} has the same patient for all slices in {patient!r}. Expected one id for each patient."
        )
    check_spelling(subjects, f"{path}, column {patient!r}")
    return subjects, f"column {patient!r} of {path.name}" + (f", sessions from {session!r}" if session else "")
