"""`check_ids`: checks patient ids against image similarity.

It finds patients with two ids, ids with two patients, and assumed ids that do not identify patients.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stageproof.train.data.ids import Ids
from stageproof.train.data.patients.components import components
from stageproof.train.data.patients.similarity import (
    BASELINE,
    NEAR_DUPLICATE,
    SAME_PATIENT,
    correlations,
    most_similar,
    without_baseline,
)
from stageproof.train.data.patients.thumbnails import COARSE, directions

FEWEST = 12
"""Minimum number of ids to estimate the mean slice at one height; with fewer, only copies of an image are found."""
_CLOSE = 8
"""Slices of other ids that are compared with each slice. The baseline excludes them: they may show the same patient."""
_LINKED, _APART = 0.5, 0.35
_PART = 3
"""Minimum number of slices of each of two patients."""
_LARGEST = 512
"""Maximum number of slices of an id to compare with each other; if there are more, evenly spaced ones are used."""


@dataclass(frozen=True)
class IdCheck:
    """Result of the check of ids against image similarity."""

    groups: np.ndarray
    """(N,) int64 from 0: the ids, merged if their slices show the same patient."""
    ids: int
    joined: int
    """Number of ids that were merged with another."""
    twins: int
    """Number of slices that are near-duplicates of a slice of another id."""
    doubled: int
    """Number of slices that show a patient of another id; of each two such ids, those of the id with fewer."""
    pairs: tuple[tuple[int, int], ...]
    """For each two ids of the same patient, the indices of one slice of each."""
    two_heads: tuple[tuple[int, int], ...]
    """For each id with two patients, the indices of two slices at the same height."""
    own_nearest: float
    """Share of slices whose most similar other slice has the same id, in [0, 1]."""
    by_chance: float
    """The expected value of that share for random ids."""
    ordered: float | None
    """Share of slices that are more similar to the next slice number of their id than to the farthest; None without
    slice numbers."""
    checked: bool
    """Whether there are enough ids to find more than copies of an image."""

    def contradicted(self) -> str | None:
        """Why assumed ids cannot be those of patients or scans; None if they can.

        Batches, copies of an image and counters fail at least one of these tests (figures: docs/PATIENT_IDS.md).
        """
        if not self.checked:
            return f"there are {self.ids} ids, too few to check them against image similarity"
        if self.own_nearest < max(0.4, 5 * self.by_chance):
            return f"the most similar slice has the same id for only {self.own_nearest:.0%} of the slices"
        if 2 * self.joined > self.ids:
            return f"{self.joined} of {self.ids} ids show the same patient as another id"
        if 5 * len(self.two_heads) > self.ids:
            return f"{len(self.two_heads)} of {self.ids} ids show several patients"
        if 10 * self.joined > self.ids and self.ordered is not None and self.ordered < 0.7:
            return (
                f"{self.joined} of {self.ids} ids show the same patient as another id, and slices with consecutive "
                "numbers are no more similar than others, as for copies"
            )
        return None


def check_ids(thumbnails: np.ndarray, ids: Ids) -> IdCheck:
    """Compare slices within and between ids.

    Two slices of different ids show the same patient if their residuals (`train.data.patients.similarity`) correlate at
    `SAME_PATIENT` or more, or if they are near-duplicates. thumbnails: (N, S, S) uint8, S a multiple of 32.
    """
    vectors, subjects = directions(thumbnails, COARSE), ids.subjects
    sizes = np.bincount(subjects)
    count = len(sizes)
    (others,), nearest = most_similar(vectors, [(_CLOSE + BASELINE, subjects, False)])
    checked = count >= FEWEST
    close = others[:, :_CLOSE]
    raw = correlations(vectors, close)
    linked = raw >= NEAR_DUPLICATE
    left = without_baseline(vectors, others[:, _CLOSE:]) if checked else vectors
    if checked:
        linked |= correlations(left, close) >= SAME_PATIENT
    linked &= close >= 0
    rows, columns = np.nonzero(linked)
    ends = close[rows, columns]
    owned = np.where(nearest >= 0, subjects[nearest] == subjects, False)
    return IdCheck(
        groups=_joined(subjects, rows, ends),
        ids=count,
        joined=len(np.unique(np.concatenate([subjects[rows], subjects[ends]]))),
        twins=int(((raw >= NEAR_DUPLICATE) & (close >= 0)).any(1).sum()),
        doubled=_doubled(subjects, rows, ends),
        pairs=_first_pairs(subjects, rows, ends),
        two_heads=_two_heads(vectors, left, others, subjects) if checked else (),
        own_nearest=float(owned.mean()),
        by_chance=float((sizes * (sizes - 1)).sum() / max(len(subjects) * (len(subjects) - 1), 1)),
        ordered=None if ids.positions is None else _ordered(vectors, subjects, ids.positions),
        checked=checked,
    )


def _joined(subjects: np.ndarray, rows: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """(N,) int64 from 0: the ids, merged if a pair of slices links them."""
    group = components(int(subjects.max()) + 1, subjects[rows], subjects[ends])
    return np.unique(group[subjects], return_inverse=True)[1].astype(np.int64)


def _first_pairs(subjects: np.ndarray, rows: np.ndarray, ends: np.ndarray) -> tuple[tuple[int, int], ...]:
    """One pair of slices for each two linked ids."""
    found: dict[tuple[int, int], tuple[int, int]] = {}
    for row, end in zip(rows.tolist(), ends.tolist(), strict=True):
        one, other = int(subjects[row]), int(subjects[end])
        found.setdefault((min(one, other), max(one, other)), (row, end))
    return tuple(found.values())


def _doubled(subjects: np.ndarray, rows: np.ndarray, ends: np.ndarray) -> int:
    """Number of slices whose id would have to change so that no patient has two ids."""
    shown: dict[tuple[int, int], tuple[set[int], set[int]]] = {}
    for row, end in zip(rows.tolist(), ends.tolist(), strict=True):
        first, second = (row, end) if subjects[row] < subjects[end] else (end, row)
        sides = shown.setdefault((int(subjects[first]), int(subjects[second])), (set(), set()))
        sides[0].add(first)
        sides[1].add(second)
    return sum(min(len(one), len(other)) for one, other in shown.values())


def _two_heads(
    vectors: np.ndarray, left: np.ndarray, others: np.ndarray, subjects: np.ndarray
) -> tuple[tuple[int, int], ...]:
    """For each id that shows two patients, two slices at the same height.

    Criterion: the slices of the id form parts without links between them, and slices of one part have a slice in the
    other part that is as similar as slices of different patients at one height. If the parts were separated only by a
    gap between slices of one patient, no slices would be that similar.
    """
    found = []
    order = np.argsort(subjects, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(subjects[order])) + 1):
        if len(rows) > _LARGEST:
            rows = rows[np.linspace(0, len(rows) - 1, _LARGEST).astype(int)]
        if len(rows) < 2 * _PART:
            continue
        similar = left[rows] @ left[rows].T
        part = components(len(rows), *np.nonzero(similar >= _LINKED))
        counts = np.bincount(part)
        large = np.flatnonzero(counts >= _PART)
        if len(large) < 2:
            continue
        raw = vectors[rows] @ vectors[rows].T
        usual = (vectors[rows] * vectors[others[rows, -1]]).sum(1)  # similarity to another patient at this height
        pair = _apart(similar, raw, usual, [np.flatnonzero(part == one) for one in large])
        if pair is not None:
            found.append((int(rows[pair[0]]), int(rows[pair[1]])))
    return tuple(found)


def _apart(similar: np.ndarray, raw: np.ndarray, usual: np.ndarray, parts: list[np.ndarray]) -> tuple[int, int] | None:
    """Two slices at one height from two unlinked parts that overlap in height; None if there are none."""
    for at, one in enumerate(parts):
        for other in parts[at + 1 :]:
            if similar[np.ix_(one, other)].max() >= _APART:
                continue
            across = raw[np.ix_(one, other)]
            here, there = across.max(1) >= usual[one], across.max(0) >= usual[other]
            if here.sum() >= _PART and there.sum() >= _PART:
                row, column = np.unravel_index(across.argmax(), across.shape)
                return int(one[row]), int(other[column])
    return None


def _ordered(vectors: np.ndarray, subjects: np.ndarray, positions: np.ndarray) -> float | None:
    """Share of slices more similar to the next slice number of their id than to the farthest; None if no id has three
    slice numbers."""
    known = np.flatnonzero(positions >= 0)
    known = known[np.lexsort((positions[known], subjects[known]))]
    right = total = 0
    for rows in np.split(known, np.flatnonzero(np.diff(subjects[known])) + 1):
        number = positions[rows]
        if len(np.unique(number)) < 3:
            continue
        after = np.minimum(np.arange(len(rows)) + 1, len(rows) - 1)
        after[-1] = len(rows) - 2
        far = np.where(number - number[0] > number[-1] - number, 0, len(rows) - 1)
        counted = (after != far) & (number[after] != number)
        near_by = (vectors[rows] * vectors[rows[after]]).sum(1)
        far_off = (vectors[rows] * vectors[rows[far]]).sum(1)
        right += int((near_by > far_off)[counted].sum())
        total += int(counted.sum())
    return right / total if total else None
