"""The statistics of comparing two runs: blocks of rounds, because neighbours in time are no independent evidence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEAST_SAMPLES = 30
"""Fewer than this support no verdict."""
_MOST_BLOCKS, _LEAST_BLOCKS = 10, 5
_MEMORIES = 3
"""A block is as long as this many times the rounds that the machine remembers."""


@dataclass(frozen=True)
class Estimate:
    """A figure, its standard error, and the degrees of freedom of that."""

    value: float
    error: float
    freedom: float


def blocks(values: np.ndarray) -> int:
    """Into how many blocks to cut the samples (N,), 5 to 10: each holds what the machine remembers, where it can.

    That is their integrated autocorrelation time, up to the first lag that is not positive, told from which side of the
    median they lie on, so that a few slow ones do not decide.
    """
    signs = np.sign(values - np.median(values))
    spectrum = np.fft.rfft(signs, 2 * len(signs))
    lags = np.fft.irfft(spectrum * spectrum.conj())[: max(2, len(signs) // 4)]
    if lags[0] <= 0:
        return _MOST_BLOCKS
    ended = np.flatnonzero(lags <= 0)
    remembered = 1 + 2 * float(lags[1 : ended[0] if len(ended) else None].sum() / lags[0])
    return int(np.clip(len(values) / (_MEMORIES * remembered), _LEAST_BLOCKS, _MOST_BLOCKS))


def block_medians(values: np.ndarray, count: int, resamples: int = 400, seed: int = 0) -> np.ndarray:
    """(resamples,) medians of resamples that draw `count` blocks in a row each (circular: Politis and Romano 1992).

    values: (N,) float, in the order they were taken, N >= count.
    """
    length = -(-len(values) // count)
    random = np.random.default_rng(seed)
    drawn = []
    at_once = max(1, 2_000_000 // len(values))  # the samples of a server are many
    for begin in range(0, resamples, at_once):
        starts = random.integers(len(values), size=(min(at_once, resamples - begin), count, 1))
        chosen = (starts + np.arange(length)).reshape(len(starts), -1)[:, : len(values)] % len(values)
        drawn.append(np.median(values[chosen], axis=1))
    return np.concatenate(drawn)


def level(values: np.ndarray) -> Estimate:
    """The median of samples (N,) in the order they were taken, with an error that allows for how few the blocks are."""
    count = blocks(values)
    spread = float(block_medians(values, count).std(ddof=1))
    return Estimate(float(np.median(values)), spread * math.sqrt(count / (count - 1)), count - 1)


def combined(value: float, parts: Sequence[Estimate]) -> Estimate:
    """`value` with the errors of independent parts added (Satterthwaite 1946)."""
    squares = np.array([part.error**2 for part in parts])
    total = float(squares.sum())
    if total == 0:
        return Estimate(value, 0.0, min(part.freedom for part in parts))
    freedom = total**2 / float((squares**2 / [part.freedom for part in parts]).sum())
    return Estimate(value, math.sqrt(total), freedom)


def beyond(estimate: Estimate, margin: float) -> float:
    """Two-sided p-value of the hypothesis that the true value lies within ± margin (Student's t)."""
    from scipy import stats

    excess = abs(estimate.value) - margin
    if estimate.error == 0:
        return 0.0 if excess > 0 else 1.0
    return min(1.0, 2 * float(stats.t.sf(excess / estimate.error, estimate.freedom)))


def interval(estimate: Estimate, confidence: float = 0.95) -> tuple[float, float]:
    """Student's interval."""
    from scipy import stats

    reach = float(stats.t.ppf((1 + confidence) / 2, estimate.freedom)) * estimate.error
    return estimate.value - reach, estimate.value + reach


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number (Holm 1979): in at most α of all runs is any of those below α wrong."""
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, at in enumerate(np.argsort(p_values)):
        highest = max(highest, min(1.0, p_values[at] * (len(p_values) - rank)))
        adjusted[at] = highest
    return adjusted
