"""Evidence for and against two groups of slices being one person.

Other groups serve as references: the slices of a reference that are nearest to slice i and to slice j show how alike
slices of one person are at that distance in the head. Where that is much and i and j are not alike, they are of two
people. Where no reference shows both, nothing is known.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from train.data.residual import Residuals, products

PAIRS = 4
"""Pairs of slices that are compared for two groups."""
BETWEEN = 0.45
"""Residual correlation of neighbours in a group from which no slice of that person is missing between them."""
EXPECTED, BESIDE = 3, 6
"""Columns of the features: highest expected residual correlation; mean of that across the nearest slice."""
_REFERENCES = 40
_FEWEST = 4  # references that must show both slices, for an expectation
_SHARE = 0.1  # and share of all references
_INNER = 0.5  # share of a reference's usual similarity of neighbours, without which there is a hole
_SHOWN = 1.5  # distance of a slice from a reference that shows it, at most, over that from its fourth best reference


def most_similar(slices: Residuals, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N, G) float32 and int32: correlation of each slice with the most similar one of each group, and that slice.

    groups: (N,) int64 from 0.
    """
    order = np.argsort(groups, kind="stable")
    bounds = np.append(np.flatnonzero(np.diff(groups[order], prepend=-1)), len(order))
    best = np.empty((len(groups), len(bounds) - 1), np.float32)
    partner = np.empty(best.shape, np.int32)
    columns = np.ascontiguousarray(slices.raw[order])
    for at, likeness in products(slices.raw, columns):
        rows = np.arange(len(likeness))
        for g, (first, last) in enumerate(pairwise(bounds)):
            place = likeness[:, first:last].argmax(axis=1)
            best[at, g] = likeness[rows, first + place]
            partner[at, g] = order[first + place]
    return best, partner


@dataclass
class References:
    """What is known of N slices from the groups that are used as references."""

    slices: Residuals
    groups: np.ndarray
    """(N,) int64 from 0, people as far as known."""
    best: np.ndarray
    """(N, G) float32, correlation of each slice with the most similar one of each group."""
    partner: np.ndarray
    """(N, G) int32, that slice."""
    number: np.ndarray = field(init=False)
    """(M,) int64, the groups that are references."""
    nearest: np.ndarray = field(init=False)
    """(N, M) int64, place within the reference of the slice most like each."""
    shown: np.ndarray = field(init=False)
    """(N, M) bool, whether the reference shows each slice: that slice is as like it as such slices usually are."""
    holes: np.ndarray = field(init=False)
    """(N,) residual correlation of each slice with the less similar of its neighbours in its group; 0 at the ends."""
    within: list[np.ndarray] = field(init=False)
    """M matrices of residual correlations within a reference; on the diagonal, that of the nearest other slice."""

    def __post_init__(self) -> None:
        slices, groups = self.slices, self.groups
        size = np.bincount(groups)
        usual = np.median(size[groups])
        fit = [g for g in np.argsort(-size, kind="stable") if 0.6 * usual <= size[g] < 2 * usual and size[g] > 2]
        self.number = np.array(fit[:_REFERENCES], np.int64)
        order = np.argsort(groups, kind="stable")
        bounds = np.searchsorted(groups[order], np.arange(len(size) + 1))
        own = np.zeros(len(groups), np.int64)
        own[order] = np.arange(len(order)) - bounds[groups[order]]
        self.nearest = own[self.partner[:, self.number]]
        self.holes = np.zeros(len(groups))
        for members in np.split(order, bounds[1:-1]):
            line = ordered(members, slices)
            self.holes[line] = gaps_in(line, slices)
        # Far below what the best references of a slice have, a reference lacks that height; and a slice that is nearest
        # to the end of a reference, or to a hole in it, may lie anywhere beyond.
        like = np.where(groups[:, None] == self.number, -1.0, self.best[:, self.number])
        usual_like = np.sort(like, axis=1)[:, -min(_FEWEST, len(self.number)), None]
        inner = np.zeros(len(groups), bool)
        for g in self.number:
            inner[groups == g] = self.holes[groups == g] >= _INNER * np.median(self.holes[groups == g])
        self.shown = (1 - like <= _SHOWN * (1 - usual_like)) & inner[self.partner[:, self.number]]
        self.within = []
        for g in self.number:
            left = slices.left[order[bounds[g] : bounds[g + 1]]]
            matrix = left @ left.T
            np.fill_diagonal(matrix, -1)
            np.fill_diagonal(matrix, matrix.max(axis=1))
            self.within.append(matrix)

    def joined(self, groups: np.ndarray) -> References:
        """The same where groups are joined. groups: (N,) int64 from 0, unions of those before."""
        if np.array_equal(groups, self.groups):
            return self
        best = np.full((len(groups), int(groups.max()) + 1), -np.inf, np.float32)
        partner = np.zeros(best.shape, np.int32)
        into = np.zeros(int(self.groups.max()) + 1, np.int64)
        into[self.groups] = groups
        for g, new in enumerate(into):
            more = self.best[:, g] > best[:, new]
            best[more, new] = self.best[more, g]
            partner[more, new] = self.partner[more, g]
        return References(self.slices, groups, best, partner)

    def features(
        self, one: np.ndarray, other: np.ndarray, holes: np.ndarray, skip: np.ndarray, sizes: np.ndarray
    ) -> np.ndarray:
        """(K, 11) features of K pairs of groups, from P pairs of slices each.

        one, other: (P, K) int64 slices. holes: (P, K) residual correlations across the worse side of `other` in its
        group's order, 0 at the ends. skip: (K, M) bool, references that are one of the two. sizes: (K, 2) of groups.
        """
        alike, raw = (_products(vectors, one, other) for vectors in (self.slices.left, self.slices.raw))
        total, known = np.zeros(one.shape), np.zeros(one.shape)
        for m, matrix in enumerate(self.within):
            usable = self.shown[one, m] & self.shown[other, m] & ~skip[:, m]
            total += np.where(usable, matrix[self.nearest[one, m], self.nearest[other, m]], 0)
            known += usable
        expected = np.where(known >= max(_FEWEST, _SHARE * len(self.number)), total / np.maximum(known, 1), 0)
        distinct = 1 + (np.diff(np.sort(other, axis=0), axis=0) != 0).sum(axis=0)
        columns = [alike.mean(0), alike.max(0), expected.mean(0), expected.max(0), raw.mean(0), raw.max(0)]
        columns += [holes.mean(0), holes.max(0), distinct / len(one), *np.log(sizes.T)]
        return np.stack(columns, axis=1)

    def against(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """(K, 11) features of the slices `rows` of one group against each of the K groups `columns`."""
        likeness = self.best[np.ix_(rows, columns)]
        # First those that lie between neighbours in the other group: these are at heights that both groups have.
        between = self.holes[self.partner[np.ix_(rows, columns)]] >= BETWEEN
        top = np.argsort(-likeness - between, axis=0, kind="stable")[:PAIRS]
        one = rows[top]
        other = self.partner[one, columns[None]].astype(np.int64)
        skip = (self.number == self.groups[rows[0]]) | (self.number == columns[:, None])
        sizes = np.stack([np.full(len(columns), len(rows)), np.bincount(self.groups)[columns]], axis=1)
        return self.features(one, other, self.holes[other], skip, sizes)


@dataclass(frozen=True)
class Tears:
    """T groups torn into two parts, each with P pairs of slices to compare."""

    one: np.ndarray
    """(P, T) int64 slices of the smaller parts."""
    other: np.ndarray
    """(P, T) int64 slices of the larger parts."""
    holes: np.ndarray
    """(P, T) as in `References.features`."""
    sizes: np.ndarray
    """(T, 2)."""

    def features(self, known: References) -> np.ndarray:
        """(T, 11) features of the parts, as if they were two groups."""
        skip = known.groups[self.one[0]][:, None] == known.number
        return known.features(self.one, self.other, self.holes, skip, self.sizes)


def tear(low: np.ndarray, high: np.ndarray, slices: Residuals) -> Tears:
    """One group torn into two parts, each in order."""
    small, large = (low, high) if len(low) <= len(high) else (high, low)
    likeness = slices.raw[small] @ slices.raw[large].T
    holes, place = gaps_in(large, slices), likeness.argmax(axis=1)
    top = np.argsort(-likeness.max(axis=1) - (holes[place] >= BETWEEN), kind="stable")[:PAIRS]
    place = place[top]
    holes = holes[place]
    sizes = np.array([[len(small), len(large)]])
    return Tears(small[top][:, None], large[place][:, None], holes[:, None], sizes)


def _products(vectors: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(P, K) products of pairs of the vectors."""
    first, second = one.ravel(), other.ravel()
    found = np.empty(len(first), np.float32)
    for start in range(0, len(first), 1024):
        rows = slice(start, start + 1024)
        found[rows] = np.einsum("kd,kd->k", vectors[first[rows]], vectors[second[rows]])
    return found.reshape(one.shape)


def ordered(members: np.ndarray, slices: Residuals) -> np.ndarray:
    """The members of a group in the order of their heights, by the Fiedler vector of their residual correlations."""
    if len(members) < 3:
        return members
    near = np.clip(slices.left[members] @ slices.left[members].T, 0, 1) ** 2
    np.fill_diagonal(near, 0)
    return members[np.argsort(np.linalg.eigh(np.diag(near.sum(axis=1)) - near)[1][:, 1], kind="stable")]


def gaps_in(members: np.ndarray, slices: Residuals) -> np.ndarray:
    """(K,) residual correlation of each of the members, in order, with its less similar neighbour; 0 at ends."""
    found = np.zeros(len(members))
    if len(members) > 2:
        steps = (slices.left[members[:-1]] * slices.left[members[1:]]).sum(axis=1)
        found[1:-1] = np.minimum(steps[1:], steps[:-1])
    return found
