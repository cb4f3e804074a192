"""Metrics in subgroups of patients by age and by sex."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from stageproof.train.data.sources.age_and_sex import NOT_RECORDED
from stageproof.train.metrics.classification import Answers

BANDS: tuple[tuple[float, float], ...] = ((0, 65), (65, 75), (75, 85), (85, float("inf")))
"""Age bands in years: lower end included, upper end excluded."""


def band_name(low: float, high: float) -> str:
    """Name of an age band, such as ``under 65``, ``65 to 74`` or ``85 or more``."""
    return (
        f"under {high:.0f}" if low <= 0 else f"{low:.0f} or more" if np.isinf(high) else f"{low:.0f} to {high - 1:.0f}"
    )


def subgroups(
    people: Answers, ages: np.ndarray, sexes: np.ndarray, figures: Callable[[Answers], dict[str, Any]]
) -> list[dict[str, Any]]:
    """Metrics of each non-empty subgroup, JSON-serialisable. Patients without a recorded value form their own subgroup.

    people: one prediction for each patient. ages: (patients,) float64 years, NaN if not recorded. sexes: (patients,)
    str or `NOT_RECORDED`. figures: returns ``accuracy`` and ``demented`` of predictions, as `Summary.decisions` does.
    """
    groups = [("age", band_name(low, high), (ages >= low) & (ages < high)) for low, high in BANDS]
    groups.append(("age", NOT_RECORDED, np.isnan(ages)))
    groups += [
        ("sex", str(sex), sexes == sex) for sex in sorted(set(sexes), key=lambda one: (one == NOT_RECORDED, one))
    ]
    return [
        {"by": by, "name": name, "patients": int(mask.sum()), **_of(people, mask, figures)}
        for by, name, mask in groups
        if mask.any()
    ]


def _of(people: Answers, mask: np.ndarray, figures: Callable[[Answers], dict[str, Any]]) -> dict[str, Any]:
    some = Answers(people.probabilities[mask], people.labels[mask], np.arange(int(mask.sum())))
    made = figures(some)
    return {
        "demented": int((some.labels > 0).sum()),
        "accuracy": made["accuracy"],
        **{name: made["demented"][name] for name in ("sensitivity", "specificity", "auc")},
    }
