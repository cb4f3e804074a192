"""Which slices to compare on: of as many people as there are, few of each rather than many of few."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from stageproof.runtime.decoding.pool import read_isolated
from stageproof.runtime.errors import ImageError
from stageproof.train.data.identity.identify import identify
from stageproof.train.data.patients.thumbnails import thumbnail
from stageproof.train.data.samples import Samples

PATIENTS, GROUPS, UNKNOWN = "patients", "groups", "unknown"
_MOST_LOOKED_AT = 8192
"""Images without ids whose people are looked for by image similarity: it takes half a minute for so many."""


@dataclass(frozen=True)
class Drawn:
    """Slices and their people."""

    samples: Samples
    """`groups` are the people; None where nobody knows."""
    unit: str
    """What the groups are: ``patients``, ``groups`` of one or more people each, or ``unknown``."""

    def draw(self, limit: int) -> Drawn:
        """At most `limit` of the slices."""
        people = self.samples.groups
        chosen = spread(len(self.samples), limit) if people is None else over_people(people, limit)
        return replace(self, samples=self.samples.select(chosen))


def spread(count: int, limit: int) -> np.ndarray:
    """At most `limit` positions, evenly spread over `count`, so that every class keeps its share."""
    return np.unique(np.linspace(0, count - 1, min(count, limit)).round().astype(np.int64))


def over_people(people: np.ndarray, limit: int) -> np.ndarray:
    """At most `limit` positions, ascending: as many people as possible, and of each as nearly the same number as there
    are slices for, evenly spread over that person's.

    people: (N,) int, equal for slices of one person.
    """
    _, index, sizes = np.unique(people, return_inverse=True, return_counts=True)
    if len(people) <= limit:
        return np.arange(len(people))
    where = np.split(np.argsort(index, kind="stable"), np.cumsum(sizes)[:-1])
    shares = _shares(sizes, limit)
    parts = [one[_middles(len(one), share)] for one, share in zip(where, shares.tolist(), strict=True) if share]
    return np.sort(np.concatenate(parts)).astype(np.int64)


def _shares(sizes: np.ndarray, limit: int) -> np.ndarray:
    """(P,) how many slices each person gives, `limit` together: no one gives two more than another who has more."""
    level = 0
    while int(np.minimum(sizes, level + 1).sum()) <= limit:
        level += 1
    shares = np.minimum(sizes, level)
    more = np.flatnonzero(sizes > level)
    extra = more[spread(len(more), limit - int(shares.sum()))] if limit > int(shares.sum()) else more[:0]
    shares[extra] += 1
    return shares


def _middles(count: int, share: int) -> np.ndarray:
    """`share` positions of `count`, evenly spread, each in the middle of its part."""
    return ((np.arange(share) + 0.5) * count / share).astype(np.int64)


def with_people(samples: Samples, *, look: bool = True) -> Drawn:
    """The slices that a user gives, with their people: by the source, by ids that it names, or by image similarity.

    Ids whose form can be mistaken are used only where image similarity confirms them. look: False leaves similarity
    out, which takes seconds to half a minute, and the people unknown.
    """
    if samples.groups is not None:
        return Drawn(samples, PATIENTS)
    ids = samples.ids
    if ids is not None and not ids.assumed:
        return Drawn(replace(samples, groups=ids.subjects), GROUPS if ids.scans else ids.verdict)
    groups, unit = _by_similarity(_Key(samples)) if look else (None, UNKNOWN)
    return Drawn(replace(samples, groups=groups), unit)


class _Key:
    """Samples as a key of a cache: by their digest."""

    def __init__(self, samples: Samples) -> None:
        self.samples = samples
        self._digest = samples.digest()

    def __hash__(self) -> int:
        return hash(self._digest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and self._digest == other._digest


@lru_cache(maxsize=2)
def _by_similarity(key: _Key) -> tuple[np.ndarray | None, str]:
    samples = key.samples
    if len(samples) > _MOST_LOOKED_AT:
        return None, UNKNOWN
    try:
        thumbnails = np.stack([thumbnail(read_isolated(samples.read(index)).image) for index in range(len(samples))])
    except (ImageError, OSError):
        return None, UNKNOWN  # the image is named where it is compared on
    found = identify(thumbnails, None, samples.ids)
    return (None, UNKNOWN) if found.unit is None else (found.groups, found.unit)


def joined(first: Drawn, second: Drawn, source: str) -> Drawn:
    """Slices of the first and of the second, of whose people none is the same."""
    unit = first.unit if first.unit == second.unit else UNKNOWN
    mine, theirs = first.samples, second.samples
    groups = None
    if mine.groups is not None and theirs.groups is not None:
        groups = np.concatenate([mine.groups, theirs.groups + mine.groups.max(initial=0) + 1])
    samples = Samples(
        images=[*mine.images, *theirs.images],
        labels=np.concatenate([mine.labels, theirs.labels]),
        names=[*mine.names, *theirs.names],
        groups=groups,
        source=source,
    )
    return Drawn(samples, unit if groups is not None else UNKNOWN)
