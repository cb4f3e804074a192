"""Summaries of age and sex of patients."""

from __future__ import annotations

from typing import Any

import numpy as np

from stageproof.train.data.sources.age_and_sex import NOT_RECORDED, Traits


def by_patient(traits: Traits, patients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(P,) float64 ages and (P,) str sexes of patients 0 … P - 1.

    traits: of N slices. patients: (N,) int64 from 0. The age of a patient with several scans is the median of the
    recorded ages. The sex of a patient with contradictory entries is `NOT_RECORDED`.
    """
    count = int(patients.max(initial=-1)) + 1
    ages, sexes = np.full(count, np.nan), np.full(count, NOT_RECORDED, dtype=object)
    order = np.argsort(patients, kind="stable")
    bounds = np.searchsorted(patients[order], np.arange(count + 1))
    for patient in range(count):
        mine = order[bounds[patient] : bounds[patient + 1]]
        recorded = traits.ages[mine][~np.isnan(traits.ages[mine])]
        ages[patient] = np.median(recorded) if len(recorded) else np.nan
        named = set(traits.sexes[mine]) - {NOT_RECORDED}
        sexes[patient] = named.pop() if len(named) == 1 else NOT_RECORDED
    return ages, sexes


def described(ages: np.ndarray, sexes: np.ndarray) -> dict[str, Any]:
    """Summary of age and sex, JSON-serialisable. ages: (P,) float64. sexes: (P,) str."""
    known = ages[~np.isnan(ages)]
    age = None
    if len(known):
        age = {
            "recorded": len(known),
            "mean": float(known.mean()),
            "sd": float(known.std(ddof=1)) if len(known) > 1 else None,
            "min": float(known.min()),
            "median": float(np.median(known)),
            "max": float(known.max()),
        }
    names = ("female", "male", "other", NOT_RECORDED)
    return {"patients": len(ages), "age": age, "sex": {name: int((sexes == name).sum()) for name in names}}
