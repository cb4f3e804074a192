"""Reads patient ids and classes from `participants.tsv` of BIDS, in the data folder or beside it.

Brain Imaging Data Structure 1.10, "Participants file": the column participant_id holds sub-<label>.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from stageproof.runtime.errors import DatasetError
from stageproof.runtime.labels import LabelSet
from stageproof.train.data.class_column import is_class, is_rating_column, resolve
from stageproof.train.data.ids import Ids, check_spelling, numbered, session_numbers
from stageproof.train.data.tables import columns, read_table

NAME = "participants.tsv"
_ID = "participant_id"
_SUBJECT = re.compile(r"(?<![A-Za-z0-9])sub-([A-Za-z0-9]+)")
_SESSION = re.compile(r"(?<![A-Za-z0-9])ses-([A-Za-z0-9]+)")


def participants_file(data: Path) -> Path | None:
    """`participants.tsv` in the folder `data`, or beside it; None if there is none."""
    places = [data / NAME, data.parent / NAME] if data.is_dir() else [data.parent / NAME]
    return next((place for place in places if place.is_file()), None)


def from_participants(paths: Sequence[str], file: Path) -> tuple[Ids | None, str]:
    """The participant of each path, None unless every path has one; and a note on ids that are not used.

    paths: (N,) with ``/`` between folders, relative to the data. An id must be a whole word of the path, with or
    without ``sub-``; the longest match is used. Raises DatasetError for a file without participant_id.
    """
    ids = [row[_ID] for row in _read(file)[1]]
    check_spelling(ids, str(file))
    known = {one.removeprefix("sub-") for one in ids}
    find = participant_finder(known)
    matches = [find(path) for path in paths]
    missed = [path for path, found in zip(paths, matches, strict=True) if not found]
    if missed:
        return None, (
            f"{file.name} names {len(known)} participants, and {len(missed)} of {len(paths)} files name none of them, "
            f"such as {missed[0]!r}: not used"
        )
    # The same id may be in a folder and in the file name; different ids in one path are ambiguous.
    several = [path for path, found in zip(paths, matches, strict=True) if len(set(found)) > 1]
    if several:
        return None, f"{len(several)} files name several participants of {file.name}, such as {several[0]!r}: not used"
    subjects = [found[0] for found in matches]
    if len(set(subjects)) < 2:
        return None, f"all files name one participant of {file.name}: not used"
    sessions = [found[1] if (found := _SESSION.search(path)) else None for path in paths]
    origin = f"participants of {file.name}, found in the paths of the files"
    return Ids("participants", origin, numbered(subjects), session_numbers(subjects, sessions)), ""


def participant_finder(known: Collection[str]) -> Callable[[str], list[str]]:
    """A function from a path to the `known` ids that are whole words of it, longer ones first. In a path with ``sub-``
    only those after it count: other words may be equal to an id, such as the slice number 1 to the participant 1."""
    words = "|".join(map(re.escape, sorted(known, key=len, reverse=True)))
    after_sub, anywhere = (
        re.compile(rf"(?<![A-Za-z0-9]){start}({words})(?![A-Za-z0-9])") for start in ("sub-", "(?:sub-)?")
    )
    return lambda path: (after_sub if _SUBJECT.search(path) else anywhere).findall(path)


def _read(file: Path) -> tuple[list[str], list[dict[str, str]]]:
    header, rows = read_table(file, "participants")
    if _ID not in header or not all(row.get(_ID) for row in rows) or not rows:
        raise DatasetError(
            f"{file} has {'empty cells in' if _ID in header and rows else 'no'} participant_id; its header is "
            f"{', '.join(header) or 'nothing'}. Correct it, or move it away from the data."
        )
    return header, rows


@dataclass(frozen=True)
class ClassColumn:
    """The column of a participants file with the class of each participant."""

    name: str
    ratings: bool
    """Whether its numbers are Clinical Dementia Ratings."""


def class_of_each(paths: Sequence[str], file: Path, classes: LabelSet | None) -> tuple[list[str], ClassColumn]:
    """The label of the participant in each path, empty for a path without one; and the column of the labels.

    It is the first column of the usual names, else of any name, in which every participant of `paths` has a class.
    Raises DatasetError for a file without participant_id, or without such a column, or if a participant has several
    classes in it.
    """
    header, rows = _read(file)
    found = [_SUBJECT.search(path) for path in paths]
    named = {match[1] for match in found if match}
    people = [row for row in rows if row[_ID].removeprefix("sub-") in named]
    usual = columns("label", header)
    reasons = []
    for name in (*usual, *(one for one in header if one not in (*usual, _ID))):
        cells = [row[name] for row in people]
        try:
            if not people or (name not in usual and not all(is_class(cell, classes) for cell in cells)):
                continue
            resolve(cells, f"{file}, column {name!r}", classes, ratings=is_rating_column(name))
        except DatasetError as error:
            reasons += [str(error)] if name in usual else []
            continue
        of: dict[str, str] = {}
        for row in people:
            first = of.setdefault(row[_ID].removeprefix("sub-"), row[name])
            if first != row[name]:
                raise DatasetError(
                    f"{file} has several rows of {row[_ID]} with different classes in {name!r}: {first!r} and "
                    f"{row[name]!r}. Expected one class for each participant: correct it, or give --data a CSV of "
                    "path, label and patient."
                )
        return [of.get(match[1], "") if match else "" for match in found], ClassColumn(name, is_rating_column(name))
    expected = "its usual names are label, diagnosis, dx and cdr"
    raise DatasetError(
        f"{file.parent} contains folders of participants, but {file.name} has no column with a class in every row "
        f"({expected}). {' '.join(reasons)}{' ' if reasons else ''}Add one, or give --data a CSV of path, label and "
        "patient."
    )
