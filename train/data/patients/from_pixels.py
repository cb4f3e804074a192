"""`identify_patients`: identifies patients from image similarity, for datasets without patient ids.

There are three verdicts: ``patients``, each group is one patient; ``groups``, each group contains all slices of one or
more patients, which is enough for a split without leakage; ``unknown``. With the first two, no patient is in two
groups: uncertain groups are merged, and if too much is uncertain the verdict is ``unknown``. docs/PATIENTS.md describes
the method and its evaluation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from stageproof.train.data.patients.components import components, weakest_link
from stageproof.train.data.patients.rejoining import strong_level
from stageproof.train.data.patients.residual import Residuals, close_pairs, products, residuals
from stageproof.train.data.patients.tearing import combine_fragments
from stageproof.train.data.patients.thumbnails import COARSE, THUMBNAIL, directions, thumbnail

# Thumbnails are defined in their own module, which other modules share, and exported here as well.
__all__ = ["COARSE", "THUMBNAIL", "Patients", "directions", "identify_patients", "thumbnail"]

_NEAR = 0.999  # minimum correlation of near-duplicates (images that differ only in compression)
_ENDS = ("below", "above")
_STACK = 3  # minimum number of slices with strong links for a stack, to exclude single copies
_FEWEST = 16  # minimum number of slices
_ASIDE = 0.03  # maximum share of undecided slices
_LARGEST = 2 / 3  # maximum share of slices in one group: others are needed to hold out
_MANY = 8192  # number of slices above which thumbnails of 32 × 32 are compared, to save time
_NULL = 3.5  # residual correlations between groups are examined from this number of spreads above the centre
_CLEAR = 0.2  # minimum difference of residual correlation within and between groups for the verdict "patients"


@dataclass(frozen=True)
class Patients:
    """Patients or groups of N slices, identified from image similarity."""

    groups: np.ndarray
    """(N,) int64 from 0, groups of undecided slices last; `verdict` says what a group is."""
    verdict: str
    """"patients": each group is exactly one patient. "groups": each group contains all slices of one or more patients,
    whose number is unknown; a split by group has no leakage. "unknown": groups are near-duplicates only, so slices of
    one patient may be in several groups."""
    error: float
    """Upper bound of the probability that any patient is in two groups, in [0, 1]; 1 if unknown."""
    below: float
    """Largest correlation between slices of two groups; NaN if there is one group."""
    above: float
    """Smallest of the largest correlations of each slice within its group; NaN if no group has two slices."""
    links: np.ndarray
    """(N,) correlation of each slice with the most similar other slice, ascending, for a histogram."""
    moved: np.ndarray
    """(N,) bool, augmented copies: rotated, flipped, shifted or zoomed slices."""
    repeats: np.ndarray
    """(N,) int64 from 0, equal for near-duplicates."""
    undecided: np.ndarray
    """(N,) bool, slices that may belong to several groups; they are left out of splits."""

    @property
    def found(self) -> bool:
        """Whether a split by `groups` has no leakage: the verdict is not ``unknown``."""
        return self.verdict != "unknown"

    @property
    def count(self) -> int | None:
        """Number of patients; None unless the verdict is ``patients``."""
        return int(self.groups.max(initial=-1)) + 1 if self.verdict == "patients" else None

    def similarity(self) -> dict[str, str | int | float | None]:
        """The entry ``similarity`` of `audit.json`, JSON-serialisable: verdict, groups (their number; None if unknown),
        undecided (number of slices), error, below, above (None if there is no such pair)."""
        ends = {name: value if math.isfinite(value) else None for name, value in vars(self).items() if name in _ENDS}
        groups = int(self.groups[~self.undecided].max(initial=-1)) + 1 if self.found else None
        undecided = int(self.undecided.sum())
        return {"verdict": self.verdict, "groups": groups, "undecided": undecided, "error": self.error, **ends}


def identify_patients(thumbnails: np.ndarray) -> Patients:
    """The patients of the slices, or groups of patients, identified from image similarity.

    thumbnails: (N, S, S) uint8, S a multiple of 32, made by `thumbnail` from the original images, so that the result
        does not depend on the input size of a network.
    """
    raw = directions(thumbnails, THUMBNAIL if len(thumbnails) <= _MANY else COARSE)
    first, second, _ = close_pairs(raw, _NEAR)
    repeats = components(len(raw), first, second)
    kept, inverse = np.unique(repeats, return_index=True)[1], repeats
    found = _identify(thumbnails[kept], raw[kept]) if len(kept) >= _FEWEST else None
    none = np.zeros(len(kept), bool)
    groups, error, single, moved, undecided = found or (np.arange(len(kept)), 1.0, False, none, none)
    verdict = "unknown" if found is None else "patients" if single else "groups"
    groups, moved, undecided = groups[inverse], moved[inverse], undecided[inverse]
    below, above, links = _ends(raw[~undecided], groups[~undecided])
    return Patients(groups, verdict, error, below, above, links, moved, repeats, undecided)


def _identify(thumbnails: np.ndarray, raw: np.ndarray) -> tuple[np.ndarray, float, bool, np.ndarray, np.ndarray] | None:
    """Groups, upper bound of the probability that a patient is split, whether each group is one patient, copies, and
    undecided slices; None if the verdict is ``unknown``.

    thumbnails: (N, S, S) uint8, without near-duplicates. raw: (N, D) their directions.
    """
    from stageproof.train.data.patients.copies import copy_links  # imports torch

    slices = residuals(raw)
    fragments, *_ = _fragments(slices)
    copy, shown, maybe = copy_links(thumbnails, slices, fragments)
    every = np.arange(len(raw))
    first = np.unique(fragments, return_index=True)[1][fragments]  # one slice of each fragment
    people = components(len(raw), np.concatenate([every, copy]), np.concatenate([first, shown]))
    moved = _moved(people, fragments)
    # Copies are left out here, since their height cannot be determined; they follow their original.
    own = np.flatnonzero(~moved)
    if len(own) < _FEWEST:
        return None
    slices = residuals(raw[own]) if moved.any() else slices
    parts, first, second, alike = _fragments(slices)
    whole = np.unique(people[own], return_inverse=True)[1]
    one_of = np.unique(whole, return_index=True)[1]
    joined = components(len(own), np.concatenate([first, np.arange(len(own))]), np.concatenate([second, one_of[whole]]))
    groups, aside, error = combine_fragments(slices, parts, joined, one_of[people[maybe]])
    if error >= 1:
        return None
    # Number the groups, those of undecided slices last.
    groups = np.unique(np.stack([aside, groups]), axis=1, return_inverse=True)[1].ravel()
    found, out = np.empty(int(people.max()) + 1, np.int64), np.zeros(int(people.max()) + 1, bool)
    found[people[own]], out[people[own]] = groups, aside
    undecided = out[people]
    if undecided.mean() > _ASIDE or np.bincount(found[people]).max() > _LARGEST * len(people):
        return None
    a, b, near = close_pairs(slices.left, min(slices.centre + _NULL * slices.spread, strong_level(slices)))
    across = near[joined[a] != joined[b]].max(initial=slices.centre)
    within = weakest_link(len(own), first, second, alike)
    # Several stacks in one group are a patient scanned twice or two similar patients: their number is uncertain.
    stacks = np.flatnonzero(np.bincount(fragments) >= _STACK)
    owner = people[np.unique(fragments, return_index=True)[1][stacks]]
    rescans = len(np.unique(owner)) < len(owner)
    single = found.max() == joined.max() and within - across > _CLEAR and not rescans and not undecided.any()
    return found[people], error, bool(single), moved, undecided


def _fragments(slices: Residuals) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(N,) int64 connected components of the strong links; and these links: (K,) pairs, (K,) residual correlations."""
    first, second, alike = close_pairs(slices.left, strong_level(slices))
    return components(len(slices.left), first, second), first, second, alike


def _ends(raw: np.ndarray, groups: np.ndarray) -> tuple[float, float, np.ndarray]:
    """`below`, `above` and `links` of `Patients`. raw: (N, D) directions. groups: (N,) int64."""
    own, other = np.full((2, len(raw)), -np.inf, np.float32)
    for at, similarity in products(raw, raw):
        same = groups[at, None] == groups
        other[at] = np.where(same, -np.inf, similarity).max(axis=1)
        similarity[np.arange(len(similarity)), np.arange(at.start, at.stop)] = -np.inf
        own[at] = np.where(same, similarity, -np.inf).max(axis=1)
    several = own[np.isfinite(own)]
    below, above = float(other.max(initial=-np.inf)), float(several.min(initial=np.inf))
    links = np.maximum(own, other)
    ends = [value if math.isfinite(value) else math.nan for value in (below, above)]
    return ends[0], ends[1], np.sort(links[np.isfinite(links)])


def _moved(people: np.ndarray, fragments: np.ndarray) -> np.ndarray:
    """(N,) bool: slices that are not in the largest fragment of their group.

    people, fragments: (N,) int64 from 0.
    """
    sizes = np.bincount(fragments)[fragments]
    order = np.lexsort((fragments, -sizes, people))
    largest = fragments[order[np.unique(people[order], return_index=True)[1]]]
    return fragments != largest[people]
