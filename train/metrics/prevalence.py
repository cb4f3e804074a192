"""`predictive_values`: positive and negative predictive values at other prevalences than in the evaluated data."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from stageproof.train.metrics.intervals import LEVEL
from stageproof.train.metrics.two_proportions import ratio_ends, why_too_few

PREVALENCES = (0.01, 0.05, 0.1, 0.2, 0.3, 0.5)


def predictive_values(
    decided: np.ndarray, positive: np.ndarray, prevalences: tuple[float, ...] = PREVALENCES, level: float = LEVEL
) -> dict[str, Any]:
    """Positive and negative predictive value at each prevalence, by Bayes' theorem; JSON-serialisable.

    decided, positive: (N,) bool, predicted and true condition of independent patients.

    Assumes the same sensitivity and specificity at all prevalences. At a given prevalence, each predictive value is a
    function of one likelihood ratio, so its interval follows from that of the ratio (`ratio_ends`).

    All except the counts are None with fewer than five patients with or without the condition.
    """
    sick, well = int(positive.sum()), int((~positive).sum())
    found: dict[str, Any] = {"level": level, "patients_with": sick, "patients_without": well}
    if why := why_too_few(sick, well):
        return {**found, "at": None, "why": why}
    caught, cleared = int((decided & positive).sum()), int((~decided & ~positive).sum())
    raised = ratio_ends(caught, sick, well - cleared, well, level)
    lowered = ratio_ends(sick - caught, sick, cleared, well, level)
    rows = []
    for prevalence in prevalences:
        odds = prevalence / (1 - prevalence)
        ppv = [_share(odds * ratio) for ratio in raised]
        missed = [_share(odds * ratio) for ratio in lowered]
        npv = [1 - missed[at] for at in (0, 2, 1)]
        rows.append(
            {
                "prevalence": prevalence,
                "positive": _figure(ppv, sick + well, "predicted positive"),
                "negative": _figure(npv, sick + well, "predicted negative"),
            }
        )
    return {**found, "at": rows}


def _share(odds: float) -> float:
    return 1.0 if math.isinf(odds) else odds / (1 + odds)


def _figure(values: list[float], patients: int, what: str) -> dict[str, Any]:
    value, low, high = values
    if math.isnan(value):
        why = f"not estimable: no patient was {what}"
        return {"value": None, "low": None, "high": None, "patients": patients, "why": why}
    return {"value": value, "low": min(low, value), "high": max(high, value), "patients": patients}
