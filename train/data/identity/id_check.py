"""Pixels check ids: one head under two ids, two heads under one id, and whether assumed ids name heads at all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stageproof.train.data.ids import Ids
from stageproof.train.data.patients.similarity import (
    BASELINE,
    SAME_HEAD,
    SAME_PICTURE,
    coarse,
    correlations,
    most_similar,
    own_head,
)

FEWEST = 12
"""Ids among which what heads share at one height can be seen; with fewer, only copies of a picture are found."""
_CLOSE = 8
"""Slices of other ids that are compared with each slice. No baseline is made of them: they may show the same head."""
_LINKED, _APART = 0.5, 0.35
_PART = 3
"""Slices that each of two heads has to show."""
_LARGEST = 512
"""Slices of an id that are compared with each other; of more, so many are drawn evenly."""


@dataclass(frozen=True)
class IdCheck:
    """What image similarity says of ids."""

    groups: np.ndarray
    """(N,) int64 from 0: the ids, joined where slices of two show one head."""
    ids: int
    joined: int
    """Ids that were joined with another."""
    twins: int
    """Slices that are nearly the same picture as a slice of another id."""
    doubled: int
    """Slices that show a head of another id, of each two such ids those of the one with fewer."""
    pairs: tuple[tuple[int, int], ...]
    """Positions of one slice of each of two ids that show one head, for each two ids found."""
    two_heads: tuple[tuple[int, int], ...]
    """Positions of two slices of one id that show two heads at one height, for each id found."""
    own_nearest: float
    """Share of slices whose most similar other slice has the same id, in [0, 1]."""
    by_chance: float
    """What that share would be of ids given at random."""
    ordered: float | None
    """Share of slices that are more similar to the next slice number of their id than to the farthest; None where
    there are no numbers."""
    checked: bool
    """Whether there are enough ids to see more than copies of a picture."""

    def contradicted(self) -> str | None:
        """Why the ids cannot be those of people or scans, for ids that a convention was taken for; None if they can.

        Batches, copies of one picture and counters fail at least one of these; docs/PATIENT_IDS.md has the figures.
        """
        if not self.checked:
            return f"they are {self.ids}, too few for the images to confirm them"
        if self.own_nearest < max(0.4, 5 * self.by_chance):
            return f"the most similar slice has the same id for {self.own_nearest:.0%} of the slices only"
        if 2 * self.joined > self.ids:
            return f"{self.joined} of {self.ids} show a head that another id shows too"
        if 5 * len(self.two_heads) > self.ids:
            return f"{len(self.two_heads)} of {self.ids} show two heads or more"
        if 10 * self.joined > self.ids and self.ordered is not None and self.ordered < 0.7:
            return (
                f"{self.joined} of {self.ids} show a head that another id shows too, and slices with neighbouring "
                "numbers are no more similar than others, as of copies"
            )
        return None


def check_ids(thumbnails: np.ndarray, ids: Ids) -> IdCheck:
    """Compare slices within and across ids.

    thumbnails: (N, S, S) uint8, S a multiple of 32. Two slices of different ids show one head where what is left of
    them (`train.data.patients.similarity`) correlates at `SAME_HEAD` or more, or where they are one picture.
    """
    vectors, subjects = coarse(thumbnails), ids.subjects
    sizes = np.bincount(subjects)
    count = len(sizes)
    (others,), nearest = most_similar(vectors, [(_CLOSE + BASELINE, subjects, False)])
    checked = count >= FEWEST
    close = others[:, :_CLOSE]
    raw = correlations(vectors, close)
    linked = raw >= SAME_PICTURE
    left = own_head(vectors, others[:, _CLOSE:]) if checked else vectors
    if checked:
        linked |= correlations(left, close) >= SAME_HEAD
    linked &= close >= 0
    rows, columns = np.nonzero(linked)
    ends = close[rows, columns]
    owned = np.where(nearest >= 0, subjects[nearest] == subjects, False)
    return IdCheck(
        groups=_joined(subjects, rows, ends),
        ids=count,
        joined=len(np.unique(np.concatenate([subjects[rows], subjects[ends]]))),
        twins=int(((raw >= SAME_PICTURE) & (close >= 0)).any(1).sum()),
        doubled=_doubled(subjects, rows, ends),
        pairs=_first_pairs(subjects, rows, ends),
        two_heads=_two_heads(vectors, left, others, subjects) if checked else (),
        own_nearest=float(owned.mean()),
        by_chance=float((sizes * (sizes - 1)).sum() / max(len(subjects) * (len(subjects) - 1), 1)),
        ordered=None if ids.positions is None else _ordered(vectors, subjects, ids.positions),
        checked=checked,
    )


def _joined(subjects: np.ndarray, rows: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """(N,) int64 from 0: the ids, those joined that a pair of slices links."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    count = int(subjects.max()) + 1
    graph = coo_matrix((np.ones(len(rows), bool), (subjects[rows], subjects[ends])), shape=(count, count))
    group = connected_components(graph, directed=False)[1]
    return np.unique(group[subjects], return_inverse=True)[1].astype(np.int64)


def _first_pairs(subjects: np.ndarray, rows: np.ndarray, ends: np.ndarray) -> tuple[tuple[int, int], ...]:
    """One pair of slices for each two ids that are linked."""
    found: dict[tuple[int, int], tuple[int, int]] = {}
    for row, end in zip(rows.tolist(), ends.tolist(), strict=True):
        one, other = int(subjects[row]), int(subjects[end])
        found.setdefault((min(one, other), max(one, other)), (row, end))
    return tuple(found.values())


def _doubled(subjects: np.ndarray, rows: np.ndarray, ends: np.ndarray) -> int:
    """How many slices would have to change their id for no head to be under two."""
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
    """Two slices of each id whose slices show two heads at the same height.

    The slices fall into parts that nothing links, and slices of one part have in the other one that is as similar as
    slices of other people at that height are: a gap between slices of one head leaves nothing that similar.
    """
    found = []
    order = np.argsort(subjects, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(subjects[order])) + 1):
        if len(rows) > _LARGEST:
            rows = rows[np.linspace(0, len(rows) - 1, _LARGEST).astype(int)]
        if len(rows) < 2 * _PART:
            continue
        similar = left[rows] @ left[rows].T
        part = _components(similar >= _LINKED)
        counts = np.bincount(part)
        large = np.flatnonzero(counts >= _PART)
        if len(large) < 2:
            continue
        raw = vectors[rows] @ vectors[rows].T
        usual = (vectors[rows] * vectors[others[rows, -1]]).sum(1)  # the similarity of somebody else at this height
        pair = _apart(similar, raw, usual, [np.flatnonzero(part == one) for one in large])
        if pair is not None:
            found.append((int(rows[pair[0]]), int(rows[pair[1]])))
    return tuple(found)


def _apart(similar: np.ndarray, raw: np.ndarray, usual: np.ndarray, parts: list[np.ndarray]) -> tuple[int, int] | None:
    """The two slices at one height of two of the parts that are not linked and overlap; None where no two are."""
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


def _components(linked: np.ndarray) -> np.ndarray:
    from scipy.sparse.csgraph import connected_components

    return connected_components(linked, directed=False)[1]


def _ordered(vectors: np.ndarray, subjects: np.ndarray, positions: np.ndarray) -> float | None:
    """Share of slices more similar to the next number of their id than to the farthest; None without three numbers."""
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
