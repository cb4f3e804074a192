"""The statistics of a parity report."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def upper_bound(events: int, trials: int, confidence: float = 0.95) -> float:
    """Upper one-sided bound on a rate, in [0, 1] (Clopper & Pearson 1934): exact for independent trials.

    0 events of 512 still leave 0.6 %. Images of one person are not independent: `export.clustered.bound`.
    """
    from scipy.stats import beta

    return 1.0 if events >= trials else float(beta.ppf(confidence, events + 1, trials - events))


def lower_bound(events: int, trials: int, confidence: float = 0.95) -> float:
    """Lower one-sided bound on a rate, in [0, 1] (Clopper & Pearson 1934)."""
    from scipy.stats import beta

    return 0.0 if events <= 0 else float(beta.ppf(1 - confidence, events, trials - events + 1))


def least_images(tolerance: float, confidence: float = 0.95) -> int:
    """The fewest images that can show a share of changed predictions to be within `tolerance`, in (0, 1]: with none
    changed, `upper_bound` is 1 - (1 - confidence) ** (1 / images). At 95 %: 299 for 1 %, 149 for 2 %."""
    if tolerance >= 1:
        return 1
    images = math.ceil(math.log(1 - confidence) / math.log1p(-tolerance))
    return images if 1 - (1 - confidence) ** (1 / images) <= tolerance else images + 1


def calibration_error(probabilities: np.ndarray, truth: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error (Guo et al. 2017, eq. 3), in [0, 1]; NaN where a probability is.

    probabilities: (N, C) float, rows sum to 1.
    truth: (N,) int, in [0, C).
    """
    confidence, right = probabilities.max(1), probabilities.argmax(1) == truth
    if not np.isfinite(confidence).all():
        return float("nan")
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [abs(confidence[which == b].mean() - right[which == b].mean()) * (which == b).mean() for b in set(which)]
    return float(sum(gaps))


def sensitivity(probabilities: np.ndarray, truth: np.ndarray, labels: Sequence[str]) -> dict[str, float]:
    """By class: the share of its images decided right, in [0, 1]; classes without images are left out."""
    decided = probabilities.argmax(1)
    return {label: float((decided[truth == i] == i).mean()) for i, label in enumerate(labels) if (truth == i).any()}
