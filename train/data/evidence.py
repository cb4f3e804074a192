"""Evidence for and against two groups of slices being one person.

Other groups serve as references: the slices of a reference that are nearest to slice i and to slice j show how alike
slices of one person are at that distance in the head. Where that is much and i and j are not alike, they are of two
people. Where no reference shows both, nothing is known.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from train.data.residual import Residuals, products

PAIRS = 4
"""Pairs of slices that are compared for two groups."""
EXPECTED = 3
"""Column of the features with the highest expected residual correlation."""
_REFERENCES = 40
_FEWEST = 4  # references that must show both slices, for an expectation
_SHOWN = 0.05  # quantile of the slices' correlation with their references from which a reference shows a slice


@dataclass
class References:
    """What is known of N slices from the groups that are used as references."""

    slices: Residuals
    groups: np.ndarray
    """(N,) int64 from 0, people as far as known."""
    number: np.ndarray = field(init=False)
    """(M,) int64, the groups that are references."""
    nearest: np.ndarray = field(init=False)
    """(N, M) int64, place within the reference of the slice most like each."""
    shown: np.ndarray = field(init=False)
    """(N, M) bool, whether the reference shows each slice: that slice is as like it as such slices usually are."""
    within: list[np.ndarray] = field(init=False)
    """M matrices of residual correlations within a reference; on the diagonal, that of the nearest other slice."""
    best: np.ndarray = field(init=False)
    """(N, G) float32, correlation of each slice with the most similar one of each group."""
    partner: np.ndarray = field(init=False)
    """(N, G) int32, that slice."""

    def __post_init__(self) -> None:
        slices, groups = self.slices, self.groups
        size = np.bincount(groups)
        usual = np.median(size[groups])
        fit = [g for g in np.argsort(-size, kind="stable") if 0.6 * usual <= size[g] < 2 * usual and size[g] > 2]
        self.number = np.array(fit[:_REFERENCES], np.int64)
        order = np.argsort(groups, kind="stable")
        bounds = np.searchsorted(groups[order], np.arange(len(size) + 1))
        self.best = np.empty((len(groups), len(size)), np.float32)
        self.partner = np.empty((len(groups), len(size)), np.int32)
        columns = np.ascontiguousarray(slices.raw[order])
        for at, likeness in products(slices.raw, columns):
            for g in range(len(size)):
                part = likeness[:, bounds[g] : bounds[g + 1]]
                place = part.argmax(axis=1)
                self.best[at, g] = part[np.arange(len(part)), place]
                self.partner[at, g] = order[bounds[g] + place]
        own = np.zeros(len(groups), np.int64)
        own[order] = np.arange(len(order)) - bounds[groups[order]]
        self.nearest = own[self.partner[:, self.number]]
        like = self.best[:, self.number]
        foreign = like[groups[:, None] != self.number]
        self.shown = like >= (np.quantile(foreign, _SHOWN) if foreign.size else 1.0)
        self.within = []
        for g in self.number:
            left = slices.left[order[bounds[g] : bounds[g + 1]]]
            matrix = left @ left.T
            np.fill_diagonal(matrix, -1)
            np.fill_diagonal(matrix, matrix.max(axis=1))
            self.within.append(matrix)

    def features(
        self, one: np.ndarray, other: np.ndarray, holes: np.ndarray, skip: np.ndarray, sizes: np.ndarray
    ) -> np.ndarray:
        """(K, 11) features of K pairs of groups, from P pairs of slices each.

        one, other: (P, K) int64 slices. holes: (P, K) residual correlations across the worse side of `other` in its
        group's order, 0 at the ends. skip: (K, M) bool, references that are one of the two. sizes: (K, 2) of groups.
        """
        slices = self.slices
        alike = np.einsum("pkd,pkd->pk", slices.left[one], slices.left[other])
        raw = np.einsum("pkd,pkd->pk", slices.raw[one], slices.raw[other])
        total, known = np.zeros(one.shape), np.zeros(one.shape)
        for m, matrix in enumerate(self.within):
            usable = self.shown[one, m] & self.shown[other, m] & ~skip[:, m]
            total += np.where(usable, matrix[self.nearest[one, m], self.nearest[other, m]], 0)
            known += usable
        expected = np.where(known >= _FEWEST, total / np.maximum(known, 1), 0)
        distinct = 1 + (np.diff(np.sort(other, axis=0), axis=0) != 0).sum(axis=0)
        columns = [alike.mean(0), alike.max(0), expected.mean(0), expected.max(0), raw.mean(0), raw.max(0)]
        columns += [holes.mean(0), holes.max(0), distinct / len(one), *np.log(sizes.T)]
        return np.stack(columns, axis=1)

    def against(self, rows: np.ndarray, columns: np.ndarray, holes: np.ndarray) -> np.ndarray:
        """(K, 11) features of the slices `rows` of one group against each of the K groups `columns`.

        holes: (N,) from `holes_of`.
        """
        likeness = self.best[np.ix_(rows, columns)]
        top = np.argsort(-likeness, axis=0, kind="stable")[:PAIRS]
        one = rows[top]
        other = self.partner[one, columns[None]].astype(np.int64)
        skip = (self.number == self.groups[rows[0]]) | (self.number == columns[:, None])
        sizes = np.stack([np.full(len(columns), len(rows)), np.bincount(self.groups)[columns]], axis=1)
        return self.features(one, other, holes[other], skip, sizes)

    def torn(self, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """(1, 11) features of two parts of one group, each in order, as if they were two groups."""
        small, large = (low, high) if len(low) <= len(high) else (high, low)
        holes = np.zeros(len(self.groups))
        holes[large] = gaps_in(large, self.slices)
        likeness = self.slices.raw[small] @ self.slices.raw[large].T
        top = np.argsort(-likeness.max(axis=1), kind="stable")[:PAIRS]
        one, other = small[top][:, None], large[likeness[top].argmax(axis=1)][:, None]
        skip = (self.number == self.groups[low[0]])[None]
        return self.features(one, other, holes[other], skip, np.array([[len(small), len(large)]]))


def ordered(members: np.ndarray, slices: Residuals) -> np.ndarray:
    """The members of a group in the order of their heights, by the Fiedler vector of their residual correlations."""
    if len(members) < 3:
        return members
    near = np.clip(slices.left[members] @ slices.left[members].T, 0, 1) ** 2
    np.fill_diagonal(near, 0)
    return members[np.argsort(np.linalg.eigh(np.diag(near.sum(axis=1)) - near)[1][:, 1], kind="stable")]


def gaps_in(members: np.ndarray, slices: Residuals) -> np.ndarray:
    """(K,) residual correlation of each of the members, in order, with the less similar of its neighbours; 0 at ends."""
    found = np.zeros(len(members))
    if len(members) > 2:
        steps = (slices.left[members[:-1]] * slices.left[members[1:]]).sum(axis=1)
        found[1:-1] = np.minimum(steps[1:], steps[:-1])
    return found
