"""`leak_bound`: lower bound of the leakage of a random split by slice if patients are unknown, without training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stageproof.train.data.patients.similarity import (
    BASELINE,
    FEWEST_SLICES,
    NEAR,
    NEAR_DUPLICATE,
    SAME_PATIENT,
    correlations,
    most_similar,
    without_baseline,
)
from stageproof.train.data.patients.thumbnails import COARSE, directions

TEST_SHARE = 0.2
"""Test share of the random split, as in published protocols."""
_LEVELS = (SAME_PATIENT, 0.8, 0.85, 0.9)
_CONFIDENCE = 0.999


@dataclass(frozen=True)
class LeakBound:
    """Lower bounds of the leakage of a random split by slice."""

    linked: float
    """Lower bound of the share of slices that have another slice of the same patient, in [0, 1]."""
    leaked: float
    """Lower bound of the share of test slices whose patient is also in training, in [0, 1]."""
    level: float | None
    """Correlation of residuals from which two slices were counted as one patient; None: near-duplicates only."""
    false: int
    """Slices that reach `level` with a slice of another class, hence of another patient. Their number, with its upper
    99.9 % confidence limit, is subtracted."""


def leak_bound(thumbnails: np.ndarray, labels: np.ndarray) -> LeakBound:
    """Lower bounds of the leakage of a random split of these slices.

    Two slices of one class are counted as one patient if their residuals, after subtracting the mean of other patients
    at the same height, correlate at 0.75 or more (`train.data.patients.similarity`). A patient has one class, so pairs
    of different classes estimate how often two patients reach that level; this number, scaled to the size of the class,
    is subtracted. A test slice with k partners has one of them in training with probability 1 - 0.2^k. With fewer than
    200 slices, or if the bound is larger, near-duplicates of any class are counted instead.

    thumbnails: (N, S, S) uint8, S a multiple of 32. labels: (N,) int64.
    """
    vectors, count = directions(thumbnails, COARSE), len(labels)
    (near, same, other), _ = most_similar(
        vectors, [(NEAR + BASELINE, None, True), (NEAR, labels, True), (8, labels, False)]
    )
    repeated = (correlations(vectors, near[:, :NEAR]) >= NEAR_DUPLICATE).sum(1)
    best = LeakBound(float((repeated > 0).mean()), float(_reached(repeated).mean()), None, 0)
    if count < FEWEST_SLICES or len(np.unique(labels)) < 2:
        return best
    left = without_baseline(vectors, near[:, NEAR:])
    within, across = correlations(left, same), correlations(left, other).max(1)
    sizes = np.bincount(labels)
    ratio = ((sizes - 1) / np.maximum(count - sizes, 1))[labels]
    for level in _LEVELS:
        partners, other_patients = (within >= level).sum(1), across >= level
        taken_off = _upper(float((ratio * other_patients).sum()))
        found = LeakBound(
            max(0.0, float(((partners > 0).sum() - taken_off) / count)),
            max(0.0, float((_reached(partners).sum() - taken_off) / count)),
            level,
            int(other_patients.sum()),
        )
        best = max(best, found, key=lambda one: one.leaked)
    return best


def _reached(partners: np.ndarray) -> np.ndarray:
    """For each slice, the probability that at least one of its partners is in training."""
    return 1 - TEST_SHARE**partners


def _upper(count: float) -> float:
    """Upper confidence limit of a Poisson mean after observing `count`."""
    from scipy import stats

    return float(stats.chi2.ppf(_CONFIDENCE, 2 * count + 2) / 2)
