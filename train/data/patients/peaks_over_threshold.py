"""Tails of samples, beyond what was seen: peaks over a threshold with an exponential excess (Pickands 1975).

Two thresholds are used, and the more cautious answer is taken: a tail may be heavier further out. The mean excess is
raised by its standard error, since it is estimated.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

_PARTS, _PEAKS = (50, 250), 15  # a fiftieth, and a fifth of that, are the tail; no fewer peaks than these
FEWEST = 5 * _PEAKS
"""Values without which nothing is said of a tail."""


def exceeded(values: np.ndarray, probability: float) -> float:
    """Level that a value of this kind exceeds with no more than this probability; infinite for few values.

    values: (N,).
    """
    if len(values) < FEWEST:
        return math.inf
    found = [float(np.quantile(values, 1 - probability))]
    for start, excess, share in _tails(values):
        if probability < share:
            found.append(start + excess * math.log(share / probability))
    return max(found)


def chance_above(values: np.ndarray, level: float) -> float:
    """Probability that a value of this kind is above the level; 1 for few values. values: (N,)."""
    if len(values) < FEWEST:
        return 1.0
    found = [float((values > level).mean())]
    for start, excess, share in _tails(values):
        if level > start:
            found.append(share * math.exp(-(level - start) / excess))
    return max(found)


def _tails(values: np.ndarray) -> Iterator[tuple[float, float, float]]:
    """Start of each tail of (N,) values, the mean excess beyond it, and the share of the values there."""
    rank = np.sort(values)[::-1]
    for part in _PARTS:
        count = max(len(rank) // part, _PEAKS)
        start = float(rank[count])
        excess = (float(rank[:count].mean()) - start) * (1 + 1 / math.sqrt(count))
        yield start, max(excess, 1e-6), count / len(rank)
