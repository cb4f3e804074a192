"""Intervals from resamples that draw patients: slices of one person are no independent evidence."""

from __future__ import annotations

import math

import numpy as np

LEVEL = 0.95
RESAMPLES = 2000
LEAST_PATIENTS = 5
"""Fewer patients than this give no figure: what one or two people do is no rate."""


def draw_patients(patients: int, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """(resamples, patients) float64: how often each patient comes in each resample (Field and Welsh 2007)."""
    equal = np.full(patients, 1 / patients)
    return np.random.default_rng(seed).multinomial(patients, equal, size=resamples).astype(np.float64)


def interval(values: np.ndarray, patients: int, level: float = LEVEL) -> tuple[float, float] | None:
    """Expanded percentile interval (Hesterberg 2015, section 4.3), which allows for how few the patients are.

    values: (resamples,) the figure in each resample, NaN where it does not exist.
    patients: how many the figure rests on.

    None where more than a tenth of the resamples have no value, or all have the same: then they say nothing of how far
    the figure may be off.
    """
    from scipy import stats

    values = values[np.isfinite(values)] if np.isfinite(values).mean() >= 0.9 else values[:0]
    if not len(values) or values.min() == values.max() or patients < 2:
        return None
    tail = stats.norm.cdf(math.sqrt(patients / (patients - 1)) * stats.t.ppf((1 - level) / 2, patients - 1))
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def exact_interval(value: float, patients: int, level: float = LEVEL) -> tuple[float, float]:
    """Clopper and Pearson's interval of a share that is 0 or 1 in each of so many patients, all alike."""
    from scipy import stats

    found = stats.binomtest(round(value * patients), patients).proportion_ci(level, method="exact")
    return float(found.low), float(found.high)
