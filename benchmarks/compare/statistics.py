"""Statistics for comparing two runs with autocorrelated samples and random differences between processes.

There are two sources of error. Within a process, neighbouring samples are autocorrelated, so the effective sample size
is smaller. Between processes running the same code, the level itself differs (memory layout, placement of threads);
samples of one process cannot show this (Kalibera and Jones 2013), so it is measured with several processes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEAST_SAMPLES = 30
"""Minimum number of samples for a verdict."""
ASSUMED_SPREAD = 0.02
"""Assumed relative standard deviation between processes of the same code, if it was not measured."""
_EXACT = 1e6  # degrees of freedom of an assumed error
_REACH = 1.5  # the density at the median is estimated over this many standard errors around it (Woodruff 1952)


@dataclass(frozen=True)
class Estimate:
    """An estimate, its standard error, and the degrees of freedom of the error."""

    value: float
    error: float
    freedom: float


def autocorrelation_time(values: np.ndarray) -> float:
    """Integrated autocorrelation time: the number of samples equivalent to one independent sample, in [1, 199] for the
    autoregressive estimate.

    values: (N,) float, in order of measurement. The larger of two estimates is returned, both computed on normal
    scores, for robustness to outliers: that of a first-order autoregression, with its coefficient corrected for bias
    (Kendall 1954) and raised by one standard error; and the sum of autocorrelations up to the first non-positive one.
    """
    from scipy import stats

    count = len(values)
    scores = stats.norm.ppf((stats.rankdata(values) - 0.5) / count)
    total = float((scores * scores).sum())
    if count < 4 or total < 1e-12:
        return 1.0
    first = (count * float((scores[1:] * scores[:-1]).sum()) / total + 1) / (count - 3)
    if first < 1:
        first += math.sqrt((1 - first * first) / count)
    first = min(max(first, 0.0), 0.99)
    spectrum = np.fft.rfft(scores, 2 * count)
    lags = np.fft.irfft(spectrum * spectrum.conj())[1 : max(2, count // 3)] / total
    ended = np.flatnonzero(lags <= 0)
    summed = 1 + 2 * float(lags[: ended[0] if len(ended) else None].sum())
    return max((1 + first) / (1 - first), summed)


def level(values: np.ndarray, processes: Sequence[int] | None = None) -> Estimate:
    """The level of one run with its error: the median, or, with several processes, the mean of their medians.

    values: (N,) float, in order of measurement. processes: number of samples of each process, in that order; None for
    one process, in which case the error does not include the differences between processes.

    With several processes the wider of two intervals is used: that of the medians (Student's t), and that of the
    autocorrelated samples.
    """
    within = _within(values)
    if processes is None or len(processes) < 2:
        return within
    medians = np.array([np.median(part) for part in np.split(values, np.cumsum(processes)[:-1])])
    value = float(medians.mean())
    between = Estimate(value, float(medians.std(ddof=1)) / math.sqrt(len(medians)), len(medians) - 1)
    within = Estimate(value, within.error, within.freedom)
    return max(between, within, key=half_width)


def _within(values: np.ndarray) -> Estimate:
    count, memory = len(values), autocorrelation_time(values)
    reach = min(0.5, _REACH / 2 / math.sqrt(count))
    low, high = np.quantile(values, (0.5 - reach, 0.5 + reach))
    shrunk = 1 - min(memory / count, 0.95)  # corrects the spread, which is smaller around the sample median
    error = float(high - low) / _REACH * math.sqrt(memory / shrunk)
    return Estimate(float(np.median(values)), error, max(count / memory - 1, 1.0))


def assumed(spread: float = ASSUMED_SPREAD) -> Estimate:
    """The assumed error from differences between processes, for a level measured in one process."""
    return Estimate(0.0, spread, _EXACT)


def combined(value: float, parts: Sequence[Estimate]) -> Estimate:
    """`value` with the combined error of independent parts (Welch-Satterthwaite degrees of freedom, 1946)."""
    squares = np.array([part.error**2 for part in parts])
    total = float(squares.sum())
    if total == 0:
        return Estimate(value, 0.0, min(part.freedom for part in parts))
    freedom = total**2 / float((squares**2 / [part.freedom for part in parts]).sum())
    return Estimate(value, math.sqrt(total), freedom)


def p_value_of_change(estimate: Estimate, margin: float) -> float:
    """Two-sided p-value of the hypothesis that the true value lies within ± margin (Student's t)."""
    from scipy import stats

    excess = abs(estimate.value) - margin
    if estimate.error == 0:
        return 0.0 if excess > 0 else 1.0
    return min(1.0, 2 * float(stats.t.sf(excess / estimate.error, estimate.freedom)))


def p_value_of_slowdown(estimate: Estimate, margin: float) -> float:
    """One-sided p-value of the hypothesis that the true value is `margin` or more (Student's t)."""
    from scipy import stats

    if estimate.error == 0:
        return 0.0 if estimate.value < margin else 1.0
    return float(stats.t.sf((margin - estimate.value) / estimate.error, estimate.freedom))


def half_width(estimate: Estimate, confidence: float = 0.95) -> float:
    """Half the width of `interval`."""
    from scipy import stats

    return float(stats.t.ppf((1 + confidence) / 2, estimate.freedom)) * estimate.error


def interval(estimate: Estimate, confidence: float = 0.95) -> tuple[float, float]:
    """Confidence interval (Student's t)."""
    reach = half_width(estimate, confidence)
    return estimate.value - reach, estimate.value + reach


def interval_of_times(values: np.ndarray, processes: Sequence[int] | None = None) -> tuple[float, float]:
    """95 % confidence interval of the level of (N,) positive times or ratios, computed on logarithms."""
    low, high = interval(level(np.log(values), processes))
    return math.exp(max(low, -700.0)), math.exp(min(high, 700.0))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for multiple testing (Holm 1979), which controls the family-wise error rate."""
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, at in enumerate(np.argsort(p_values)):
        highest = max(highest, min(1.0, p_values[at] * (len(p_values) - rank)))
        adjusted[at] = highest
    return adjusted


def detectable(processes: int, samples: int, rows: int, margin: float, spread: float, noise: float = 0.03) -> float:
    """The relative change that is detected in one of `rows` rows with 80 % power, at α = 0.05 after Holm's correction.

    processes: of each run. samples: of each process. spread, noise: relative standard deviations, between processes and
    between independent samples of one process. margin: change that a verdict must exceed.
    """
    from scipy import stats

    variance = (spread**2 + (math.pi / 2) * noise**2 / samples) / processes
    error = math.sqrt(2 * variance)
    freedom = 2 * (processes - 1) or _EXACT
    return margin + error * float(stats.t.ppf(1 - 0.025 / rows, freedom) + stats.t.ppf(0.8, freedom))
