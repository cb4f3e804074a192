"""Writes and reads `groups.csv`, the patient or group of each slice. The audit writes it, and `--groups` reads it.

Users who know the patient ids can write one with the columns file and patient.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from stageproof.runtime.errors import DatasetError
from stageproof.runtime.text.escapes import cell, from_cell
from stageproof.runtime.text.hints import program
from stageproof.train.data.class_column import name_classes
from stageproof.train.data.ids import Ids, check_spelling, numbered, session_numbers
from stageproof.train.data.samples import Samples
from stageproof.train.data.tables import assert_distinct, column, read_table

COLUMNS = ("file", "group")
VERDICTS = ("patients", "groups", "undecided")
"""Values of the column verdict. ``undecided``: the slice may belong to several groups, and is left out of splits."""


def write_groups(
    path: Path,
    names: Sequence[str],
    groups: np.ndarray,
    verdict: str = "patients",
    undecided: np.ndarray | None = None,
) -> None:
    """Write the file, UTF-8, in the order of the slices.

    names: (N,) as in `Samples.names`. groups: (N,) int. verdict: ``patients``, or ``groups`` if a group may contain
    several patients; it is written so that readers do not count groups as patients. undecided: (N,) bool, slices that
    may belong to several groups.
    """
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        more = [] if verdict == "patients" else [verdict]
        writer.writerow([*COLUMNS, *(["verdict"] if more else [])])
        out = np.zeros(len(names), bool) if undecided is None else undecided
        rows = zip(names, groups.tolist(), out.tolist(), strict=True)
        writer.writerows([cell(name), group, *(["undecided"] if aside else more)] for name, group, aside in rows)


def with_groups(samples: Samples, path: Path) -> Samples:
    """The samples with the ids of the file at `path`. Raises DatasetError as `read_ids`."""
    ids = read_ids(samples, path)
    return replace(samples, ids=ids, groups=ids.subjects)


def read_ids(samples: Samples, path: Path) -> Ids:
    """The ids of the samples in the file at `path`; any text is a valid id.

    The column of the ids is group, patient, or another name in `train.data.tables.COLUMNS`. Columns session, slice and
    verdict are optional.

    Raises DatasetError if the file cannot be read, lacks a column, does not list exactly the slices of the samples, or
    has only one group.
    """
    rows = _read(path)
    known = set(samples.names)
    # `write_groups` escapes some names; a file written by a user has them unescaped.
    rows = {name if name in known else from_cell(name): row for name, row in rows.items()}
    unknown = [name for name in rows if name not in known]
    missing = [name for name in samples.names if name not in rows]
    wrong = f"unknown in {samples.source}" if unknown else f"of {samples.source} without a row"
    if unknown or missing:
        names = unknown or missing
        raise DatasetError(
            f"{path}: {len(names)} files {wrong}, such as {names[0]!r}. Expected one row for each file, with names "
            f"such as {samples.names[0]!r}; {program('train.audit')} writes such a groups.csv."
        )
    subjects = [rows[name][0] for name in samples.names]
    if len(set(subjects)) < 2:
        raise DatasetError(f"{path} has the same group for every file. Expected one group for each patient.")
    if name_classes(subjects):
        raise DatasetError(f"{path} has names of classes as groups. Expected one group for each patient.")
    check_spelling(subjects, str(path))
    sessions = session_numbers(subjects, [rows[name][1] for name in samples.names])
    verdicts = [rows[name][2] for name in samples.names]
    undecided = np.array([one == "undecided" for one in verdicts])
    verdict = "patients" if set(verdicts) == {"patients"} else "groups"
    return Ids("file", f"{path.name}", numbered(subjects), sessions, verdict=verdict, undecided=undecided)


def _read(path: Path) -> dict[str, tuple[str, str, str]]:
    """(group, session, verdict) by file."""
    header, rows = read_table(path, "groups")
    file, group, session = (column(kind, header) for kind in ("path", "patient", "session"))
    missing = [name for name, found in (("file", file), ("group", group)) if found is None]
    if file is None or group is None:
        found = ", ".join(header) or "nothing"
        raise DatasetError(
            f"{path} has no column {' and no '.join(missing)}; its header is {found}. Expected the columns file and "
            "group (or patient)."
        )
    assert_distinct(header, (file, group, session), path)
    groups: dict[str, tuple[str, str, str]] = {}
    for number, row in enumerate(rows, 2):
        name, one = row[file], row[group]
        verdict = row.get("verdict", "") or "patients"
        if not name or not one:
            raise DatasetError(f"{path}, line {number}: expected a file and its group, got {row}.")
        if verdict not in VERDICTS:
            raise DatasetError(f"{path}, line {number}: verdict is {verdict!r}, expected {' or '.join(VERDICTS)}.")
        if groups.setdefault(name, (one, row.get(session or "", ""), verdict))[0] != one:
            raise DatasetError(
                f"{path}, line {number}: {name!r} is in two groups, {groups[name][0]!r} and {one!r}. Expected one."
            )
    return groups
