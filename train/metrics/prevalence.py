"""Predictive values where the condition is as common as elsewhere, not as in the data that was judged."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from stageproof.train.metrics.intervals import LEAST_PATIENTS, LEVEL
from stageproof.train.metrics.two_proportions import ratio_ends

PREVALENCES = (0.01, 0.05, 0.1, 0.2, 0.3, 0.5)


def predictive_values(
    decided: np.ndarray, positive: np.ndarray, prevalences: tuple[float, ...] = PREVALENCES, level: float = LEVEL
) -> dict[str, Any]:
    """Positive and negative predictive value at each prevalence, by Bayes' rule; JSON-ready.

    decided, positive: (N,) bool, of independent patients: predicted to have the condition, and having it.

    Assumes that sensitivity and specificity stay what they are in these patients. At a given prevalence each predictive
    value depends on one likelihood ratio alone, so its interval is that of the ratio (`ratio_ends`).

    Everything but the counts is None with fewer than five patients on either side.
    """
    sick, well = int(positive.sum()), int((~positive).sum())
    found: dict[str, Any] = {"level": level, "patients_with": sick, "patients_without": well}
    if min(sick, well) < LEAST_PATIENTS:
        why = (
            f"not estimable: {sick} patients with dementia and {well} without, fewer than {LEAST_PATIENTS} on one side"
        )
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
                "positive": _figure(ppv, sick + well, "predicted to be demented"),
                "negative": _figure(npv, sick + well, "predicted not to be demented"),
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
