"""Patients identified from image similarity, where the dataset publishes no ids.

Three answers are possible: each group is one patient; each group is a union of whole patients, which is enough for a
split that leaks nobody; or unknown. No answer but the last puts slices of one person into two groups: in doubt, groups
are joined, and in more doubt the answer is unknown. docs/PATIENTS.md gives the argument and the measurements.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stageproof.train.data.patients.thumbnails import COARSE, THUMBNAIL, directions, thumbnail

if TYPE_CHECKING:
    from stageproof.train.data.patients.residual import Residuals

# Thumbnails are made in a module of their own, which the comparing modules share; users find them here too.
__all__ = ["COARSE", "THUMBNAIL", "Patients", "directions", "identify_patients", "thumbnail"]

_NEAR = 0.999  # correlation of pictures that differ by no more than another compression makes them
_ENDS = ("below", "above")
_STACK = 3  # slices that strong links hold: more than a copy or two
_FEWEST = 16  # slices, for any answer
_ASIDE = 0.03  # share of the slices that may be set aside
_LARGEST = 2 / 3  # share of the slices in one group, at most: it takes others to hold out
_MANY = 8192  # slices above which thumbnails of 32 x 32 are compared, for time
_NULL = 3.5  # spreads above the centre from which residual correlations across groups are looked at
_CLEAR = 0.2  # residual correlation between links within and links across groups, for each group to be one patient


@dataclass(frozen=True)
class Patients:
    """Which of N slices are of one patient, as far as image similarity shows it."""

    groups: np.ndarray
    """(N,) int64 from 0, those of undecided slices last. Slices of one group belong together; what a group is,
    `verdict` says."""
    verdict: str
    """What a group is: "patients": exactly one person. "groups": one or more whole people, how many is not known; a
    split by group puts nobody on both sides. "unknown": near-identical pictures only, so that the other slices of a
    person may be in other groups."""
    error: float
    """Upper bound of the probability that the slices of some person are in two groups, in [0, 1]; 1 when unknown."""
    below: float
    """Correlation of the most similar slices of two groups; NaN where there is one group."""
    above: float
    """Correlation that each slice has, at least, with another one of its group; NaN where no group has two."""
    links: np.ndarray
    """(N,) correlation of each slice with the one most similar to it, ascending: what a histogram shows."""
    moved: np.ndarray
    """(N,) bool, slices that show their patient turned, mirrored, shifted or zoomed: copies made by augmentation."""
    repeats: np.ndarray
    """(N,) int64 from 0, equal for slices that differ by no more than another compression makes them differ."""
    undecided: np.ndarray
    """(N,) bool, slices that may be of several of the groups: no part of a split may have them."""

    @property
    def found(self) -> bool:
        """Whether a split by `groups` keeps every person on one side."""
        return self.verdict != "unknown"

    @property
    def count(self) -> int | None:
        """Number of people; None unless each group is one person."""
        return int(self.groups.max(initial=-1)) + 1 if self.verdict == "patients" else None

    def similarity(self) -> dict[str, str | int | float | None]:
        """What image similarity shows, JSON-ready: verdict, groups (number of groups; at least so many people, and None
        when unknown), undecided (number of slices), error, below, above (None where there is no such pair)."""
        ends = {name: value if math.isfinite(value) else None for name, value in vars(self).items() if name in _ENDS}
        groups = int(self.groups[~self.undecided].max(initial=-1)) + 1 if self.found else None
        undecided = int(self.undecided.sum())
        return {"verdict": self.verdict, "groups": groups, "undecided": undecided, "error": self.error, **ends}


def identify_patients(thumbnails: np.ndarray) -> Patients:
    """The patients among the slices, or groups of whole patients, or neither, as far as image similarity shows it.

    thumbnails: (N, S, S) uint8, S a multiple of 32, from `thumbnail` of the original images: the result must not depend
        on the size that a network happens to be trained at.
    """
    from stageproof.train.data.patients.components import components
    from stageproof.train.data.patients.residual import close_pairs

    raw = directions(thumbnails, THUMBNAIL if len(thumbnails) <= _MANY else COARSE)
    first, second, _ = close_pairs(raw, _NEAR)
    repeats = components(len(raw), first, second)
    kept, inverse = np.unique(repeats, return_index=True)[1], repeats
    found = _parted(thumbnails[kept], raw[kept]) if len(kept) >= _FEWEST else None
    none = np.zeros(len(kept), bool)
    groups, error, single, moved, undecided = found or (np.arange(len(kept)), 1.0, False, none, none)
    verdict = "unknown" if found is None else "patients" if single else "groups"
    groups, moved, undecided = groups[inverse], moved[inverse], undecided[inverse]
    below, above, links = _ends(raw[~undecided], groups[~undecided])
    return Patients(groups, verdict, error, below, above, links, moved, repeats, undecided)


def _parted(thumbnails: np.ndarray, raw: np.ndarray) -> tuple[np.ndarray, float, bool, np.ndarray, np.ndarray] | None:
    """Groups of whole people, probability that somebody is torn, whether each is one person, which slices are copies,
    and which are undecided; None where no such groups are certain.

    thumbnails: (N, S, S) uint8, no two nearly the same. raw: (N, D) their directions.
    """
    from stageproof.train.data.patients.components import components, weakest_link
    from stageproof.train.data.patients.copies import copy_links
    from stageproof.train.data.patients.rejoining import strong_level
    from stageproof.train.data.patients.residual import close_pairs, residuals
    from stageproof.train.data.patients.tearing import part

    slices = residuals(raw)
    fragments, *_ = _fragments(slices)
    copy, shown, maybe = copy_links(thumbnails, slices, fragments)
    every = np.arange(len(raw))
    first = np.unique(fragments, return_index=True)[1][fragments]  # a slice of each fragment
    people = components(len(raw), np.concatenate([every, copy]), np.concatenate([first, shown]))
    moved = _moved(people, fragments)
    # Copies show no height of their own: what is claimed rests on the slices that they were made from.
    own = np.flatnonzero(~moved)
    if len(own) < _FEWEST:
        return None
    slices = residuals(raw[own]) if moved.any() else slices
    parts, first, second, alike = _fragments(slices)
    whole = np.unique(people[own], return_inverse=True)[1]
    one_of = np.unique(whole, return_index=True)[1]
    joined = components(len(own), np.concatenate([first, np.arange(len(own))]), np.concatenate([second, one_of[whole]]))
    groups, aside, error = part(slices, parts, joined, one_of[people[maybe]])
    if error >= 1:
        return None
    # Numbers of groups, those that are set aside last.
    groups = np.unique(np.stack([aside, groups]), axis=1, return_inverse=True)[1].ravel()
    found, out = np.empty(int(people.max()) + 1, np.int64), np.zeros(int(people.max()) + 1, bool)
    found[people[own]], out[people[own]] = groups, aside
    undecided = out[people]
    if undecided.mean() > _ASIDE or np.bincount(found[people]).max() > _LARGEST * len(people):
        return None
    a, b, near = close_pairs(slices.left, min(slices.centre + _NULL * slices.spread, strong_level(slices)))
    across = near[joined[a] != joined[b]].max(initial=slices.centre)
    within = weakest_link(len(own), first, second, alike)
    # Several stacks in one group: a head scanned again, or two heads that look so; how many people is not certain.
    stacks = np.flatnonzero(np.bincount(fragments) >= _STACK)
    owner = people[np.unique(fragments, return_index=True)[1][stacks]]
    rescans = len(np.unique(owner)) < len(owner)
    single = found.max() == joined.max() and within - across > _CLEAR and not rescans and not undecided.any()
    return found[people], error, bool(single), moved, undecided


def _fragments(slices: Residuals) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(N,) int64 groups that strong links hold, and those: (K,) pairs and their residual correlations."""
    from stageproof.train.data.patients.components import components
    from stageproof.train.data.patients.rejoining import strong_level
    from stageproof.train.data.patients.residual import close_pairs

    first, second, alike = close_pairs(slices.left, strong_level(slices))
    return components(len(slices.left), first, second), first, second, alike


def _ends(raw: np.ndarray, groups: np.ndarray) -> tuple[float, float, np.ndarray]:
    """`below`, `above` and `links` of `Patients`. raw: (N, D) directions. groups: (N,) int64."""
    from stageproof.train.data.patients.residual import products

    own, other = np.full((2, len(raw)), -np.inf, np.float32)
    for at, likeness in products(raw, raw):
        same = groups[at, None] == groups
        other[at] = np.where(same, -np.inf, likeness).max(axis=1)
        likeness[np.arange(len(likeness)), np.arange(at.start, at.stop)] = -np.inf
        own[at] = np.where(same, likeness, -np.inf).max(axis=1)
    several = own[np.isfinite(own)]
    below, above = float(other.max(initial=-np.inf)), float(several.min(initial=np.inf))
    links = np.maximum(own, other)
    ends = [value if math.isfinite(value) else math.nan for value in (below, above)]
    return ends[0], ends[1], np.sort(links[np.isfinite(links)])


def _moved(people: np.ndarray, fragments: np.ndarray) -> np.ndarray:
    """(N,) bool: slices that are not of the largest fragment of their group.

    people, fragments: (N,) int64 from 0.
    """
    sizes = np.bincount(fragments)[fragments]
    order = np.lexsort((fragments, -sizes, people))
    largest = fragments[order[np.unique(people[order], return_index=True)[1]]]
    return fragments != largest[people]
