"""`Ids`: subject, session and slice number of each slice as found in a source."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from stageproof.runtime.errors import DatasetError

WORDS = {
    "file": "a groups file",
    "table": "a table",
    "participants": "participants.tsv",
    "dicom": "DICOM headers",
    "names": "file names",
    "pattern": "--patient-pattern",
    "folders": "folders",
    "source": "the source",
    "pixels": "image similarity",
    "nothing": "nothing",
}
"""Source of patient ids, as in run.json (`patients_told_by`) → its name in messages."""


@dataclass(frozen=True)
class Ids:
    """Ids of N slices. All arrays have one entry for each slice, in the same order."""

    kind: str
    """One of `WORDS`."""
    origin: str
    """Description of the source, with an example."""
    subjects: np.ndarray
    """(N,) int64 from 0, equal for slices with the same subject."""
    sessions: np.ndarray | None = None
    """(N,) int64 from 0, equal for slices of one session of one subject; None if the source has no sessions."""
    positions: np.ndarray | None = None
    """(N,) int64 slice numbers, -1 for a slice without one; None if the source has no slice numbers."""
    scans: bool = False
    """Whether an id may identify a scan, so that one patient may have several ids."""
    assumed: bool = False
    """Whether the naming convention is ambiguous, so that image similarity must confirm the ids."""
    verdict: str = "patients"
    """``patients``, or ``groups`` if a groups file says that a group may contain several patients."""
    undecided: np.ndarray | None = None
    """(N,) bool, slices that may belong to several groups according to a groups file; None if there are none."""

    def select(self, rows: np.ndarray) -> Ids:
        """The ids of the slices at `rows` ((K,) int)."""
        return replace(
            self,
            subjects=self.subjects[rows],
            sessions=None if self.sessions is None else self.sessions[rows],
            positions=None if self.positions is None else self.positions[rows],
            undecided=None if self.undecided is None else self.undecided[rows],
        )

    def counted(self) -> str:
        """Numbers of subjects, sessions and slices, as text."""
        noun = "scans or patients" if self.scans else "groups" if self.verdict == "groups" else "patients"
        parts = [f"{len(np.unique(self.subjects))} {noun}"]
        if self.sessions is not None:
            parts.append(f"{len(np.unique(self.sessions))} sessions")
        return ", ".join([*parts, f"{len(self.subjects)} slices"])


def numbered(keys: Sequence[Hashable]) -> np.ndarray:
    """(N,) int64 from 0: the keys numbered in the order of their first appearance."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)


def session_numbers(subjects: Sequence[Hashable], sessions: Sequence[str | None]) -> np.ndarray | None:
    """(N,) int64 from 0, equal for slices of one session of one subject; None if no slice has a session."""
    if not any(sessions):
        return None
    return numbered(list(zip(subjects, sessions, strict=True)))


def check_spelling(subjects: Sequence[str], where: str) -> None:
    """Raise DatasetError if two ids are one number in two spellings, such as 001 and 1, or 7 and 7.0, as spreadsheets
    write them: one patient would be split in two. where: the source, for the message."""
    spelt: dict[str, str] = {}
    for subject in dict.fromkeys(subjects):
        number = re.fullmatch(r"(?:sub-)?0*(\d+)(?:\.0+)?", subject)
        first = spelt.setdefault(number[1] if number else subject, subject)
        if first != subject:
            raise DatasetError(
                f"{where}: {first!r} and {subject!r} are one number in two spellings, and may be one patient. Spell "
                "the id of a patient the same in every row; if they are two patients, rename one."
            )
