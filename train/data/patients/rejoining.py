"""Joins fragments of one patient that are separated by missing slices, by a score of their nearest slices.

The score is learned without ids: positive examples are fragments that are split on purpose; negative examples are
pieces of two fragments that overlap in height and therefore belong to two patients.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from stageproof.train.data.patients.components import components
from stageproof.train.data.patients.heights import FAR, gaps, in_order
from stageproof.train.data.patients.residual import Residuals

_STRONG, _STRONG_FROM, _STRONG_TO = 7.5, 0.3, 0.75  # level of a strong link in spreads above the centre, and its limits
_WEIGHT = 0.12  # weight of a score in `Score.room`, in spacings
_LEAD = 4.0  # pairs whose score is at most this much (log odds) below the threshold remain alternatives
_PARTS, _PAIRS = 60, 12000  # minimum number of examples of a class; number of random pairs of different patients
_FRAGMENTS = 400  # maximum number of fragments used by `Score.rooms`
_CUTS, _END = 40, 4  # maximum number of random cuts of a fragment; slices compared at each end
_REACH, _LOST = 6, np.array([0, 1, 2, 3, 4, 5, 7, 9, 12, 16])  # missing slices at a cut, in training and in `rooms`


def strong_level(slices: Residuals) -> float:
    """Minimum residual correlation of a strong link: two such slices show one patient."""
    return min(max(slices.centre + _STRONG * slices.spread, _STRONG_FROM), _STRONG_TO)


class Score:
    """Log odds, up to a constant, that two parts at different heights belong to one patient.

    Logistic regression, trained on the parts of split fragments and on parts of two overlapping fragments, which belong
    to two patients.
    """

    def __init__(
        self, slices: Residuals, line: np.ndarray, long: list[np.ndarray], near: float, rng: np.random.Generator
    ) -> None:
        """line: (N,) heights. long: fragments, (K,) int64 each, ordered by height. near: minimum distance of parts."""
        self.left, self.line, self.near = slices.left, line, near
        self.models: list[Any] = []
        self.level = strong_level(slices)
        halves = [long[0::2], long[1::2]]
        split = [self._of_split_fragments(half, rng) for half in halves]
        different = [self._of_different_patients(half, rng) for half in halves]
        self.different_patients = np.empty(0)
        """(K,) cross-fitted scores of parts of different patients."""
        if min(len(one) for one in split + different) < _PARTS:
            return
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        for own, other in zip(split, different, strict=True):
            target = np.r_[np.ones(len(own)), np.zeros(len(other))]
            model = make_pipeline(StandardScaler(), LogisticRegression(C=0.3, max_iter=500))
            self.models.append(model.fit(np.concatenate([own, other]), target))
        unseen = zip(self.models, reversed(different), strict=True)
        self.different_patients = np.concatenate([model.decision_function(one) for model, one in unseen])

    def of(self, pairs: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
        """(K,) scores of pairs of groups of slices, (A,) and (B,) int64: the smaller of the scores of both models."""
        if not pairs:
            return np.empty(0)
        terms = np.array([self._terms(one, other) for one, other in pairs])
        return np.min([model.decision_function(terms) for model in self.models], axis=0)

    @staticmethod
    def room(gap: np.ndarray, score: np.ndarray) -> np.ndarray:
        """(K,) distance of two parts in height plus a small weight times their score."""
        return np.minimum(gap, FAR) + _WEIGHT * score

    def rooms(self, long: list[np.ndarray], sure: float, rng: np.random.Generator) -> np.ndarray:
        """(K,) `room` of parts of split fragments that are joined neither by a link nor by a score above `sure`.

        Each fragment is cut at random positions, or one slice is separated, with increasing numbers of missing slices.
        long: the fragments that the regression was trained on.
        """
        found = []
        for at in range(0, len(long), math.ceil(len(long) / _FRAGMENTS)):
            group = long[at]
            alike, last = self.left[group] @ self.left[group].T, len(group)
            parts = [
                (np.arange(cut), np.arange(end, last))
                for cut in rng.integers(1, last, min(_CUTS, 2 * last))
                for end in cut + _LOST
                if end < last
            ]
            for one in range(last):
                for lost in _LOST[1:]:
                    parts.append((np.r_[0 : max(one - lost, 0), min(one + lost + 1, last) : last], np.array([one])))
            parts = [(one, other) for one, other in parts if len(one) and alike[np.ix_(one, other)].max() <= self.level]
            if parts:
                terms = np.array([self._terms(group[one], group[other]) for one, other in parts])
                scores = self.models[1 - at % 2].decision_function(terms)
                found.append(self.room(terms[:, 2], scores)[scores <= sure])
        return np.concatenate(found) if found else np.empty(0)

    def _terms(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """(8,) features: largest residual correlations of the slices nearest in height, distance, squares, products."""
        apart = np.abs(self.line[one][:, None] - self.line[other])
        one = one[np.argsort(apart.min(axis=1), kind="stable")[:_END]]
        other = other[np.argsort(apart.min(axis=0), kind="stable")[:_END]]
        alike = np.sort((self.left[one] @ self.left[other].T).ravel())[::-1]
        highest = np.array([alike[0], alike[:3].mean()])
        far = min(float(apart.min()), FAR)
        return np.r_[highest, far, highest * far, highest**2, far**2]

    def _of_split_fragments(self, groups: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
        """(K, 8) features of fragments cut at random positions, with missing slices, if no strong link remains."""
        found = []
        for group in groups:
            alike = self.left[group] @ self.left[group].T
            for cut in rng.integers(1, len(group), min(_CUTS, 2 * len(group))):
                end = cut + int(rng.integers(0, _REACH))
                if end < len(group) and alike[:cut, end:].max() <= self.level:
                    found.append(self._terms(group[:cut], group[end:]))
        return np.array(found)

    def _of_different_patients(self, groups: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
        """(K, 8) features of the part of one fragment above a height and the part of another fragment below it."""
        found = []
        for _ in range(_PAIRS if len(groups) > 1 else 0):
            one, other = (groups[at] for at in rng.choice(len(groups), 2, replace=False))
            low, high = max(self.line[one[0]], self.line[other[0]]), min(self.line[one[-1]], self.line[other[-1]])
            if high - low < 2 * self.near:
                continue
            cut = rng.uniform(low, high)
            upper, lower = one[self.line[one] > cut], other[self.line[other] < cut - rng.uniform(self.near, _REACH)]
            if len(upper) and len(lower):
                found.append(self._terms(upper, lower))
        return np.array(found)


def join_fragments(
    score: Score, line: np.ndarray, groups: np.ndarray, near: float, sure: float
) -> tuple[np.ndarray, int, np.ndarray]:
    """(N,) int64 groups after joining those with a score above `sure` at different heights; the number of joins; and
    (K, 2) int64 ambiguous pairs of these groups, where one group has such a score with several others.

    Ambiguous pairs are not joined here, because a group of several patients would occupy heights at which parts of each
    of these patients may be missing.
    """
    found = 0
    while True:
        members, count, size = in_order(groups), int(groups.max()) + 1, np.bincount(groups)
        apart = gaps(line, groups)
        pairs = np.argwhere(apart > near)
        scores = score.of([(members[g], members[h]) for g, h in pairs])
        pairs = np.take_along_axis(pairs, np.argsort(size[pairs], axis=1, kind="stable"), 1)  # the smaller group first
        highest = np.full(count, -np.inf)
        np.maximum.at(highest, pairs[:, 0], scores)
        # The amount by which a score exceeds `sure` is ignored: no pairs of different patients calibrate such scores.
        likely = highest[pairs[:, 0]] > sure
        pairs = pairs[(scores > sure) | (likely & (scores > sure - _LEAD))]
        clear = np.bincount(pairs[:, 0], minlength=count)[pairs[:, 0]] == 1
        for one, (small, large) in enumerate(pairs):
            # Parts of the same larger group must not be at one height.
            same = pairs[pairs[:, 1] == large, 0]
            clear[one] &= bool((np.maximum(apart[small, same], apart[same, small]) > near)[same != small].all())
        if not clear.any():
            return groups, found, pairs
        new = components(count, *pairs[clear].T)[groups]
        found += count - 1 - int(new.max())
        groups = new
