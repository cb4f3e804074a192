"""Summaries of age and sex of patients, and metrics in subgroups by age and by sex."""

from __future__ import annotations

from typing import Any

import numpy as np

from stageproof.train.data.sources.age_and_sex import NOT_RECORDED, Traits
from stageproof.train.metrics.classification import Answers
from stageproof.train.metrics.with_intervals import Summary

BANDS: tuple[tuple[float, float], ...] = ((0, 65), (65, 75), (75, 85), (85, float("inf")))
"""Age bands in years: lower end included, upper end excluded."""


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


def band_name(low: float, high: float) -> str:
    """Name of an age band, such as ``under 65``, ``65 to 74`` or ``85 or more``."""
    return (
        f"under {high:.0f}" if low <= 0 else f"{low:.0f} or more" if np.isinf(high) else f"{low:.0f} to {high - 1:.0f}"
    )


def subgroups(people: Answers, ages: np.ndarray, sexes: np.ndarray) -> list[dict[str, Any]]:
    """Metrics of each non-empty subgroup, JSON-serialisable. Patients without a recorded value form their own subgroup.

    people: one prediction for each patient. ages: (patients,) float64 years, NaN if not recorded. sexes: (patients,)
    str or `NOT_RECORDED`.
    """
    groups = [("age", band_name(low, high), (ages >= low) & (ages < high)) for low, high in BANDS]
    groups.append(("age", NOT_RECORDED, np.isnan(ages)))
    groups += [
        ("sex", str(sex), sexes == sex) for sex in sorted(set(sexes), key=lambda one: (one == NOT_RECORDED, one))
    ]
    return [
        {"by": by, "name": name, "patients": int(mask.sum()), **_of(people, mask)}
        for by, name, mask in groups
        if mask.any()
    ]


def _of(people: Answers, mask: np.ndarray) -> dict[str, Any]:
    some = Answers(people.probabilities[mask], people.labels[mask], np.arange(int(mask.sum())), people.classes)
    made = Summary(some).decisions()
    return {
        "positive": int(some.positive.sum()),
        "accuracy": made["accuracy"],
        **{name: made["positive"][name] for name in ("sensitivity", "specificity", "auc")},
    }
