"""Decision curve analysis: net benefit of treating by the predicted probability (Vickers and Elkin 2006, 26:565)."""

from __future__ import annotations

from typing import Any

import numpy as np

from stageproof.train.metrics.intervals import LEVEL, exact_ends
from stageproof.train.metrics.two_proportions import difference_ends, why_too_few

THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 20))
"""Threshold probabilities for treatment, which express the harm of a false positive relative to a false negative."""


def net_benefit(
    probabilities: np.ndarray, positive: np.ndarray, thresholds: tuple[float, ...] = THRESHOLDS, level: float = LEVEL
) -> dict[str, Any]:
    """Net benefit TP/n - FP/n · t / (1 - t) at each threshold t, in true positives per patient; JSON-serialisable.

    probabilities: (N,) float64, predicted probability of the condition for each independent patient. positive: (N,)
    bool, true condition. thresholds: in (0, 1); patients with a probability of t or more are treated.

    `treat_all` is the net benefit of treating all patients; that of treating none is 0. `over_all` is the model minus
    `treat_all`, (TN · t / (1 - t) - FN) / n. Intervals are pointwise. All except the counts are None with fewer than
    five patients with or without the condition.
    """
    count, sick = len(positive), int(positive.sum())
    found: dict[str, Any] = {"patients": count, "positive": sick, "prevalence": None, "level": level}
    if why := why_too_few(sick, count - sick):
        return {**found, "curve": None, "why": why}
    at = np.array(thresholds)
    odds = at / (1 - at)
    acted = probabilities[None, :] >= at[:, None]
    right, wrong = (acted & positive).sum(1), (acted & ~positive).sum(1)
    spared, missed = (count - sick) - wrong, sick - right
    share_low, share_high = exact_ends(np.full(len(at), sick), count, level)
    curves = {
        "model": ((right - odds * wrong) / count, *difference_ends(right, wrong, count, odds, level)),
        "treat_all": tuple(share * (1 + odds) - odds for share in (sick / count, share_low, share_high)),
        "over_all": _negative((missed - odds * spared) / count, *difference_ends(missed, spared, count, odds, level)),
    }
    rows = []
    for row, threshold in enumerate(thresholds):
        figures = {
            name: {"value": float(value[row]), "low": float(low[row]), "high": float(high[row]), "patients": count}
            for name, (value, low, high) in curves.items()
        }
        counts = {"true_positives": int(right[row]), "false_positives": int(wrong[row])}
        rows.append({"threshold": threshold, **counts, **figures})
    return {**found, "prevalence": sick / count, "curve": rows}


def _negative(value: np.ndarray, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return 0.0 - value, 0.0 - high, 0.0 - low  # avoids -0.0
