"""Formats the metrics of a cross-validation for a terminal."""

from __future__ import annotations

from typing import Any

from stageproof.runtime.labels import LABELS
from stageproof.train.crossvalidate.pooling import LEVELS, OF_FOLDS
from stageproof.train.reports.formatting import CALIBRATION, ROWS, joined, number, pick, spoken


def lines(facts: dict[str, Any]) -> list[str]:
    """The lines: mean over the folds and pooled metrics, with intervals. facts: as `pooling.pool` returns them."""
    unit = "groups" if facts["data"]["groups"] is not None else "patients"
    titles = {path: (title, share) for title, path, share in ROWS}
    text = []
    for level in LEVELS:
        if not facts[level]:
            continue
        count = facts["data"][level]
        text += ["", f"{f'{count} {level}':<27}{'mean of folds, 95 % interval, SD':<36}pooled, 95 % interval"]
        for name in OF_FOLDS:
            title, share = titles[name]
            mean = spread(facts["over_folds"][level][name], share, facts["split"]["folds"])
            text.append(f"{title:<27}{mean:<36}{spoken(pick(facts[level], name), share)}")
        text.append(f"{'majority class':<27}{'':<36}{number(facts[level]['largest_class'], True)}")
    if facts["calibration"]:
        text += ["", f"{'slices, temperature from other ' + unit:<45}{'before':<25}after"]
        for title, name in CALIBRATION:
            before, after = (_short(facts["calibration"][side][name]) for side in ("before", "after"))
            text.append(f"{title:<45}{before:<25}{after}")
    return [*text[1:], "", *_explained(facts)]


def _explained(facts: dict[str, Any]) -> list[str]:
    """Explanation of the two columns."""
    counted = facts["slices"]["counted"]
    left = [label for label in LABELS if label not in counted]
    text = [
        "mean of folds: the metric of each fold, averaged.",
        "pooled: one metric over the predictions of all folds. The pooled AUC ranks predictions of",
        "different networks together, so that an offset between folds lowers it.",
    ]
    if facts["slices"]["accuracy"]["low"] is not None:
        text.append("Both intervals include the variance of the training: twice the variance over patients alone.")
    if facts["studies_by"] == "cross-fitted":
        text.append("patients: predicted by the study rule, fitted on other patients of the fold.")
    elif facts["studies_by"] == "mean":
        text.append("patients: predicted by the mean probability of their slices.")
    if counted and left:
        text.append(f"balanced accuracy: in both columns, the mean recall of {joined(counted)},")
        text.append(f"without {joined(left)}, too few to estimate recall.")
    return text


def spread(mean: dict[str, Any], share: bool, folds: int) -> str:
    """The mean over folds, its interval, and the standard deviation over folds."""
    if mean["mean"] is None:
        return "not estimable"
    value = spoken({"value": mean["mean"], "low": mean["low"], "high": mean["high"]}, share)
    sd = "" if mean["sd"] is None else f", SD {100 * mean['sd']:.1f}" if share else f", SD {mean['sd']:.3f}"
    return f"{value}{sd}" + ("" if mean["folds"] == folds else f" ({mean['folds']} folds)")


def _short(figure: dict[str, Any]) -> str:
    """The figure, without the reason if it has a value and no interval."""
    return (
        number(figure["value"], False)
        if figure["low"] is None and figure["value"] is not None
        else spoken(figure, False)
    )
