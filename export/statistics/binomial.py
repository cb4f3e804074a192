"""Clopper-Pearson bounds on a proportion, and the Bonferroni-corrected confidence level of several bounds."""

from __future__ import annotations

import math

from stageproof.train.metrics.intervals import exact

ALPHA = 0.05
"""Family-wise error rate: probability that any artifact of a bundle passes although it exceeds its tolerance."""


def level(artifacts: int) -> float:
    """Confidence level of each bound, in (0, 1), if `artifacts` artifacts are judged by one (Bonferroni correction)."""
    return 1 - ALPHA / max(1, artifacts)


def upper_bound(events: float, trials: float, confidence: float = 0.95) -> float:
    """Upper one-sided bound on a proportion, in [0, 1] (Clopper & Pearson 1934); exact for independent trials.

    For 0 events of 512 it is 0.6 %. For correlated images of one patient use `export.statistics.clustered.bound`.
    """
    return exact(events, trials, 2 * confidence - 1)[1]


def lower_bound(events: int, trials: int, confidence: float = 0.95) -> float:
    """Lower one-sided bound on a proportion, in [0, 1] (Clopper & Pearson 1934)."""
    return exact(events, trials, 2 * confidence - 1)[0]


def minimum_images(tolerance: float, confidence: float = 0.95) -> int:
    """Smallest number of images for which `upper_bound` without events is within `tolerance`, in (0, 1].

    Without events, `upper_bound` is 1 - (1 - confidence) ** (1 / images). At 95 %: 299 for 1 %, 149 for 2 %.
    """
    if tolerance >= 1:
        return 1
    images = math.ceil(math.log(1 - confidence) / math.log1p(-tolerance))
    return images if 1 - (1 - confidence) ** (1 / images) <= tolerance else images + 1
