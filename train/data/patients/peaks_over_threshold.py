"""Extrapolates tail quantiles and probabilities of samples: peaks over threshold, exponential excess (Pickands 1975).

Of two thresholds the more conservative result is used, because a tail may be heavier further out. The estimated mean
excess is increased by its standard error.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

_PARTS, _PEAKS = (50, 250), 15  # the tail is 1/50 or 1/250 of the sample; minimum number of peaks
FEWEST = 5 * _PEAKS
"""Minimum sample size."""


def exceeded(values: np.ndarray, probability: float) -> float:
    """The level that a further value exceeds with at most this probability; infinite for a sample that is too small.

    values: (N,) float.
    """
    if len(values) < FEWEST:
        return math.inf
    found = [float(np.quantile(values, 1 - probability))]
    for start, excess, share in _tails(values):
        if probability < share:
            found.append(start + excess * math.log(share / probability))
    return max(found)


def chance_above(values: np.ndarray, level: float) -> float:
    """Probability that a further value is above the level; 1 for a sample that is too small. values: (N,) float."""
    if len(values) < FEWEST:
        return 1.0
    found = [float((values > level).mean())]
    for start, excess, share in _tails(values):
        if level > start:
            found.append(share * math.exp(-(level - start) / excess))
    return max(found)


def _tails(values: np.ndarray) -> Iterator[tuple[float, float, float]]:
    """(threshold, mean excess, share of values) of each tail. values: (N,) float."""
    rank = np.sort(values)[::-1]
    for part in _PARTS:
        count = max(len(rank) // part, _PEAKS)
        start = float(rank[count])
        excess = (float(rank[:count].mean()) - start) * (1 + 1 / math.sqrt(count))
        yield start, max(excess, 1e-6), count / len(rank)
