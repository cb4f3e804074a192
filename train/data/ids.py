"""What a source says of whose each slice is: subject, session and slice, and where that was read."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np

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
"""Where ids come from, as run.json has it (`patients_told_by`), and in words."""


@dataclass(frozen=True)
class Ids:
    """Whose each of N slices is; position i of every array is the same slice."""

    kind: str
    """One of `WORDS`."""
    origin: str
    """Where the ids were read, with an example, for people."""
    subjects: np.ndarray
    """(N,) int64 from 0, equal for slices with the same subject."""
    sessions: np.ndarray | None = None
    """(N,) int64 from 0, equal for slices of one session of one subject; None where the source names none."""
    positions: np.ndarray | None = None
    """(N,) int64 slice numbers, -1 where a slice has none; None where the source numbers no slices."""
    scans: bool = False
    """Whether an id may be that of a scan, so that one person may have several."""
    assumed: bool = False
    """Whether a convention that can be mistaken was recognised, so that the pixels have to confirm it."""
    verdict: str = "patients"
    """``patients``, or ``groups`` where a groups file says that a group may hold several people."""
    undecided: np.ndarray | None = None
    """(N,) bool, slices that may be of several groups, where a groups file says so; None for none."""

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
        """How many subjects, sessions and slices, in words."""
        noun = "scans or patients" if self.scans else "groups" if self.verdict == "groups" else "patients"
        parts = [f"{len(np.unique(self.subjects))} {noun}"]
        if self.sessions is not None:
            parts.append(f"{len(np.unique(self.sessions))} sessions")
        return ", ".join([*parts, f"{len(self.subjects)} slices"])


def numbered(keys: Sequence[Hashable]) -> np.ndarray:
    """(N,) int64 from 0, equal for equal keys, in the order of their first appearance."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)


def session_numbers(subjects: Sequence[Hashable], sessions: Sequence[str | None]) -> np.ndarray | None:
    """(N,) int64 from 0, equal for one session of one subject; None where no slice names a session."""
    if not any(sessions):
        return None
    return numbered(list(zip(subjects, sessions, strict=True)))
