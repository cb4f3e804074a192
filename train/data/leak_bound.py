"""What a random split of slices leaks at least, where nobody knows the patients: measured without any learning."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stageproof.train.data.patients.similarity import (
    BASELINE,
    FEWEST_SLICES,
    NEAR,
    SAME_HEAD,
    SAME_PICTURE,
    coarse,
    correlations,
    most_similar,
    own_head,
)

TEST_SHARE = 0.2
"""Share of the slices that a random split holds out, as the published protocols do."""
_LEVELS = (SAME_HEAD, 0.8, 0.85, 0.9)
_CONFIDENCE = 0.999


@dataclass(frozen=True)
class LeakBound:
    """What a random split leaks at least, where nobody knows the patients."""

    linked: float
    """Share of slices with another slice of the same head, at least, in [0, 1]."""
    leaked: float
    """Share of the test slices of a random split whose head is in training too, at least, in [0, 1]."""
    level: float | None
    """Correlation of what is left of two heads from which they were counted as one; None for the same picture."""
    false: int
    """Slices that reach the level with a slice of another class, hence of somebody else: they are taken off, and what
    they may be off by, at 99.9 % confidence."""


def leak_bound(thumbnails: np.ndarray, labels: np.ndarray) -> LeakBound:
    """Lower bounds of what a random split of these slices leaks.

    Two slices of one class count as one head's where what is left of them without what heads share at one height
    correlates at 0.75 or more (`train.data.patients.similarity`). A person has one class, so slices of other classes
    show how often two people reach that level: so many, scaled to the size of the class, are taken off. A test slice
    with k such partners has one in training with probability 1 - 0.2^k. Of fewer than 200 slices, and where it is more,
    slices that are the same picture are counted, of any class.

    thumbnails: (N, S, S) uint8, S a multiple of 32. labels: (N,) int64.
    """
    vectors, count = coarse(thumbnails), len(labels)
    (near, same, other), _ = most_similar(
        vectors, [(NEAR + BASELINE, None, True), (NEAR, labels, True), (8, labels, False)]
    )
    repeated = (correlations(vectors, near[:, :NEAR]) >= SAME_PICTURE).sum(1)
    best = LeakBound(float((repeated > 0).mean()), float(_reached(repeated).mean()), None, 0)
    if count < FEWEST_SLICES or len(np.unique(labels)) < 2:
        return best
    left = own_head(vectors, near[:, NEAR:])
    within, across = correlations(left, same), correlations(left, other).max(1)
    sizes = np.bincount(labels)
    ratio = ((sizes - 1) / np.maximum(count - sizes, 1))[labels]
    for level in _LEVELS:
        partners, strangers = (within >= level).sum(1), across >= level
        taken_off = _upper(float((ratio * strangers).sum()))
        found = LeakBound(
            max(0.0, float(((partners > 0).sum() - taken_off) / count)),
            max(0.0, float((_reached(partners).sum() - taken_off) / count)),
            level,
            int(strangers.sum()),
        )
        best = max(best, found, key=lambda one: one.leaked)
    return best


def _reached(partners: np.ndarray) -> np.ndarray:
    """Chance that one of so many partners is in training, of each slice."""
    chance: np.ndarray = 1 - TEST_SHARE**partners
    return chance


def _upper(count: float) -> float:
    """Upper confidence limit of a Poisson mean of which `count` was seen."""
    from scipy import stats

    return float(stats.chi2.ppf(_CONFIDENCE, 2 * count + 2) / 2)
