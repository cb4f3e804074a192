"""Accuracy metrics of an artifact and its reference on labelled images: calibration error, sensitivity."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def calibration_error(probabilities: np.ndarray, truth: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error (Guo et al. 2017, eq. 3), in [0, 1]; NaN if any probability is not finite.

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
    """Class → sensitivity (recall), in [0, 1]; classes without images are omitted.

    probabilities: (N, C). truth: (N,) int, in [0, C). labels: the C classes.
    """
    predicted = probabilities.argmax(1)
    return {label: float((predicted[truth == i] == i).mean()) for i, label in enumerate(labels) if (truth == i).any()}
