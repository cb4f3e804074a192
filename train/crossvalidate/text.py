"""The figures of a cross-validation for a terminal of 80 columns."""

from __future__ import annotations

from textwrap import wrap
from typing import Any

from stageproof.runtime.labels import LabelSet
from stageproof.train.crossvalidate.pooling import LEVELS, OF_FOLDS
from stageproof.train.reports.formatting import (
    CALIBRATION,
    format_figure,
    joined,
    metric_rows,
    number,
    pick,
    positive_classes,
)
from stageproof.train.reports.terminal import WIDTH, table
from stageproof.train.runs.record import reported_classes

_WIDTHS = (25, 32, 21)


def lines(facts: dict[str, Any]) -> list[str]:
    """The lines: mean over the folds and pooled metrics, with intervals. facts: as `pooling.pool` returns them."""
    unit = "groups" if facts["data"]["groups"] is not None else "patients"
    classes = reported_classes(facts)
    text: list[str] = []
    reasons: list[str] = []
    for level in LEVELS:
        if not facts[level]:
            continue
        rows: list[tuple[str, ...]] = []
        for name, (title, share) in titles_of(classes).items():
            mean, pooled = facts["over_folds"][level][name], pick(facts[level], name)
            rows.append((title, spread(mean, share, mean["folds"]), _short(pooled, share)))
            if pooled["low"] is None and pooled.get("why"):
                reasons.append(f"{title}: {pooled['why']}.")
            if mean["mean"] is not None and mean["folds"] != facts["split"]["folds"]:
                reasons.append(f"{title} of {level}: the mean is over the {mean['folds']} folds that define it.")
        rows.append(("always the largest class", "", number(facts[level]["largest_class"], True)))
        heads = (f"{facts['data'][level]} {level}", "mean of folds, 95 % interval, SD", "pooled, 95 % interval")
        text += [*table(heads, rows, _WIDTHS), ""]
    if calibration := facts["calibration"]:
        rows = [
            (title, *(_short(calibration[side][name], False) for side in ("before", "after")))
            for title, name in CALIBRATION
        ]
        text += [*table((f"slices, temperature of other {unit}", "before", "after"), rows, (38, 20, 20)), ""]
    notes = [*explained(facts), *dict.fromkeys(reasons)]
    return [*text, *(line for note in notes for line in wrap(note, WIDTH))]


def titles_of(classes: LabelSet) -> dict[str, tuple[str, bool]]:
    """Path of each metric of the folds → its name, and whether it is a share. Without those that are the same as
    another one because there are only two classes."""
    rows = {path: (title, share) for title, path, share in metric_rows(classes)}
    return {path: rows[path] for path in OF_FOLDS if path in rows}


def warnings(facts: dict[str, Any]) -> list[str]:
    """What a reader must know before the figures."""
    if facts["shuffled_labels"] is not None:
        first = ["CONTROL: trained on shuffled labels. The metrics should be at chance."]
    else:
        first = []
    leaked = facts["split"]["leaked"]
    if leaked is None:
        what = "PATIENTS UNKNOWN: the same patient may appear in both training and test; no metric is by patient."
        return [*first, what]
    if any(leaked):
        what = "belong to a group" if facts["data"]["groups"] is not None else "show a patient"
        return [
            *first,
            f"LEAKAGE: up to {max(leaked):.0%} of the test slices of a fold {what} of its training set. These metrics "
            "do not estimate performance on new patients.",
        ]
    return first


def explained(facts: dict[str, Any]) -> list[str]:
    """What the two columns are, a sentence or two each."""
    counted = facts["slices"]["counted"]
    classes = reported_classes(facts)
    left = [label for label in classes.names if label not in counted]
    text = [
        "Mean of folds: each fold's own figure, averaged.",
        "Pooled: one figure over all folds. It ranks predictions of different networks together, so that a shift "
        "between folds lowers its AUC.",
    ]
    if facts["slices"]["accuracy"]["low"] is not None:
        text.append("Both intervals include the variance of the training: twice the variance over patients alone.")
    if facts["studies_by"] == "cross-fitted":
        text.append("Patients: by the rule for studies, fitted on other patients of the fold.")
    elif facts["studies_by"] == "mean":
        text.append("Patients: by the mean probability of their slices.")
    if counted and left:
        text.append(
            f"Balanced accuracy: in both columns the mean recall of {joined(counted)}, without {joined(left)}, too few "
            "to estimate a recall."
        )
    return [*text, *filter(None, [positive_classes(classes)])]


def spread(mean: dict[str, Any], share: bool, folds: int) -> str:
    """The mean over folds, its interval, and the standard deviation over folds."""
    if mean["mean"] is None:
        return "not estimable"
    value = format_figure({"value": mean["mean"], "low": mean["low"], "high": mean["high"]}, share)
    sd = "" if mean["sd"] is None else f", SD {100 * mean['sd']:.1f}" if share else f", SD {mean['sd']:.3f}"
    return f"{value}{sd}" + ("" if mean["folds"] == folds else f" ({mean['folds']} folds)")


def _short(figure: dict[str, Any], share: bool) -> str:
    """Without the reason, where a value or its interval is missing."""
    if figure["value"] is None:
        return "not estimable"
    return number(figure["value"], share) if figure["low"] is None else format_figure(figure, share)
