"""Parts of torn fragments, recognised by their nearest slices.

What one person's parts look like to each other is learned without any id: from fragments that are torn on purpose, and
from pieces of fragments that overlap in height and so are of two people.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from stageproof.train.data.patients.components import components
from stageproof.train.data.patients.heights import FAR, gaps, in_order
from stageproof.train.data.patients.residual import Residuals

_STRONG, _STRONG_FROM, _STRONG_TO = 7.5, 0.3, 0.75  # a strong link: spreads above the centre, within these limits
_WEIGHT = 0.12  # spacings of room that a score counts for
_LEAD = 4.0  # log odds by which a score must be below one that joins for it to be out of the question
_PARTS, _PAIRS = 60, 12000  # parts that a regression learns from, at least; pairs of fragments for strangers
_FRAGMENTS = 400  # fragments that show how much room torn parts leave, at most
_CUTS, _END = 40, 4  # places at which a fragment is torn; slices that are compared there
_REACH, _LOST = 6, np.array([0, 1, 2, 3, 4, 5, 7, 9, 12, 16])  # slices that a tear is wide, to learn and to judge


def strong_level(slices: Residuals) -> float:
    """Residual correlation from which two slices are of one person."""
    return min(max(slices.centre + _STRONG * slices.spread, _STRONG_FROM), _STRONG_TO)


class Score:
    """Log odds of two parts, some spacings apart in height, being of one person, up to a constant.

    A logistic regression that has learned it from torn fragments and, for strangers, from pieces of two fragments that
    overlap and so are of two people.
    """

    def __init__(
        self, slices: Residuals, line: np.ndarray, long: list[np.ndarray], near: float, rng: np.random.Generator
    ) -> None:
        """long: fragments, (K,) int64 each, in order of height. line: (N,) heights. near: least distance of parts."""
        self.left, self.line, self.near = slices.left, line, near
        self.models: list[Any] = []
        self.level = strong_level(slices)
        halves = [long[0::2], long[1::2]]
        torn = [self._torn(half, rng) for half in halves]
        strangers = [self._strangers(half, rng) for half in halves]
        self.strangers = np.empty(0)
        """(K,) scores of strangers, by the model that has not seen them."""
        if min(len(one) for one in torn + strangers) < _PARTS:
            return
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        for own, other in zip(torn, strangers, strict=True):
            target = np.r_[np.ones(len(own)), np.zeros(len(other))]
            model = make_pipeline(StandardScaler(), LogisticRegression(C=0.3, max_iter=500))
            self.models.append(model.fit(np.concatenate([own, other]), target))
        unseen = zip(self.models, reversed(strangers), strict=True)
        self.strangers = np.concatenate([model.decision_function(one) for model, one in unseen])

    def of(self, pairs: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
        """(K,) scores of pairs of groups of slices, (A,) and (B,) int64: the lower of the two models'."""
        if not pairs:
            return np.empty(0)
        terms = np.array([self._terms(one, other) for one, other in pairs])
        return np.min([model.decision_function(terms) for model in self.models], axis=0)

    @staticmethod
    def room(gap: np.ndarray, score: np.ndarray) -> np.ndarray:
        """(K,) how much room one part leaves the other: their distance in height and, for little, their score."""
        return np.minimum(gap, FAR) + _WEIGHT * score

    def rooms(self, long: list[np.ndarray], sure: float, rng: np.random.Generator) -> np.ndarray:
        """(K,) `room` of parts of torn fragments that neither a link nor a score above `sure` joins again.

        A fragment is cut at a random place, or one slice taken out, with more and more slices missing there. long: as
        the regression has learned from.
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
        """(8,) highest residual correlations of the slices nearest in height, their distance, squares and products."""
        apart = np.abs(self.line[one][:, None] - self.line[other])
        one = one[np.argsort(apart.min(axis=1), kind="stable")[:_END]]
        other = other[np.argsort(apart.min(axis=0), kind="stable")[:_END]]
        alike = np.sort((self.left[one] @ self.left[other].T).ravel())[::-1]
        highest = np.array([alike[0], alike[:3].mean()])
        far = min(float(apart.min()), FAR)
        return np.r_[highest, far, highest * far, highest**2, far**2]

    def _torn(self, groups: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
        """(K, 8) terms of fragments cut at random places, with slices missing there, where no strong link is left."""
        found = []
        for group in groups:
            alike = self.left[group] @ self.left[group].T
            for cut in rng.integers(1, len(group), min(_CUTS, 2 * len(group))):
                end = cut + int(rng.integers(0, _REACH))
                if end < len(group) and alike[:cut, end:].max() <= self.level:
                    found.append(self._terms(group[:cut], group[end:]))
        return np.array(found)

    def _strangers(self, groups: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
        """(K, 8) terms of the part of one fragment above a place and the part of another one below it."""
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


def rejoined(
    score: Score, line: np.ndarray, groups: np.ndarray, near: float, sure: float
) -> tuple[np.ndarray, int, np.ndarray]:
    """(N,) int64 groups, joined where the one has room for the other and they score as one person; how often; and
    (K, 2) int64 pairs of these groups that score so, but so do others with one of the two: any of them may be right.

    These are not joined here: what a group of several people has at some height would seem to leave no room there for
    the other parts of each of them.
    """
    found = 0
    while True:
        members, count, size = in_order(groups), int(groups.max()) + 1, np.bincount(groups)
        apart = gaps(line, groups)
        pairs = np.argwhere(apart > near)
        scores = score.of([(members[g], members[h]) for g, h in pairs])
        pairs = np.take_along_axis(pairs, np.argsort(size[pairs], axis=1, kind="stable"), 1)  # the smaller one first
        highest = np.full(count, -np.inf)
        np.maximum.at(highest, pairs[:, 0], scores)
        # How far a score is above `sure` counts for nothing: no pair of strangers was seen that shows what it is worth.
        likely = highest[pairs[:, 0]] > sure
        pairs = pairs[(scores > sure) | (likely & (scores > sure - _LEAD))]
        clear = np.bincount(pairs[:, 0], minlength=count)[pairs[:, 0]] == 1
        for one, (small, large) in enumerate(pairs):
            # Two parts of the larger one do not lie at one height.
            same = pairs[pairs[:, 1] == large, 0]
            clear[one] &= bool((np.maximum(apart[small, same], apart[same, small]) > near)[same != small].all())
        if not clear.any():
            return groups, found, pairs
        new = components(count, *pairs[clear].T)[groups]
        found += count - 1 - int(new.max())
        groups = new
