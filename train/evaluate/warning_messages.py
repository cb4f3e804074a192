"""Warnings of an evaluation, shown before the metrics, and whether the evaluation fails."""

from __future__ import annotations

from typing import Any

from stageproof.runtime.text.hints import program
from stageproof.train.evaluate.negative_controls import control_fails
from stageproof.train.reports.formatting import power_sentence
from stageproof.train.test_set.held_out import HeldOut

_OF = {"patients": "show a patient", "groups": "belong to a group"}


def is_control(facts: dict[str, Any]) -> bool:
    """Whether the evaluated run was trained on shuffled labels. facts: content of `evaluation.json`."""
    return facts["control"]["shuffled_labels"] is not None


def fails(facts: dict[str, Any]) -> bool:
    """Whether a control failed, or training patients were evaluated. facts: content of `evaluation.json`."""
    identity, shuffled = facts["control"].get("identity"), facts["control"]["permutation"]
    learned = is_control(facts) and shuffled is not None and control_fails(shuffled)
    return learned or _contradicted(facts, identity) or bool(facts["data"]["leaked"])


def _contradicted(facts: dict[str, Any], identity: dict[str, Any] | None) -> bool:
    """Whether image similarity shows patients in both training and test although their ids do not."""
    return identity is not None and not identity["holds"] and facts["data"]["leaked"] == 0


def warnings_of(held: HeldOut, facts: dict[str, Any]) -> list[str]:
    """The warnings. facts: content of `evaluation.json` except for the warnings."""
    warnings = []
    if is_control(facts):
        shuffled = facts["control"]["permutation"]
        p = f" (permutation test: p = {shuffled['p']:.3f})" if shuffled else ""
        power = f" {power_sentence(shuffled, facts['data']['patients'])}" if shuffled else ""
        warnings.append(f"CONTROL: this run was trained on shuffled labels. Its metrics should be at chance{p}.{power}")
    if held.leaked:
        warnings.append(
            f"LEAKAGE: {held.leaked:.0%} of these slices {_OF[held.unit or 'patients']} of the training set. The "
            "metrics do not estimate performance on new patients, and no temperature was fitted. Train with --split "
            "patient."
        )
    if held.unit is None:
        warnings.append(
            "PATIENTS UNKNOWN: patients of the training set may be among these slices; the metrics would then be too "
            "high. There are no intervals and no calibration, because these need known patients."
        )
        if held.patients_from == "pixels":
            warnings.append(
                "This run identified patients from image similarity with the method of version 0.1, which could split "
                "one patient into several. Train again, or give patient ids with --groups or --patient-pattern."
            )
    elif held.unit == "groups":
        warnings.append(
            "GROUPS, NOT PATIENTS: a group may contain several patients, or one of several scans of a patient. "
            "Intervals are over groups, and there are no metrics by patient."
        )
    if not held.compared:
        warnings.append(
            "NOT CHECKED: the data of the run no longer exists or has changed, so training slices may be among these."
        )
    if held.seen:
        warnings.append(f"{held.seen} slices were left out: they show patients in the data of the run.")
    if held.undecided:
        warnings.append(f"{held.undecided} slices were left out: they may belong to several groups.")
    identity = facts["control"]["identity"]
    if identity and _contradicted(facts, identity):
        warnings.append(
            f"THE SPLIT IS CONTRADICTED: by image similarity, {identity['shown']:.1%} of these slices show a patient "
            "of the training set, although their ids are not in the training set. Check the ids with "
            f"{program('train.audit')}."
        )
    if facts["selected_on_evaluated"]:
        warnings.append(
            "SELECTED ON THESE SLICES: this run selected its epoch (--keep or --patience) on these slices, so the "
            "metrics are optimistic. Train again: this version selects the epoch on other patients."
        )
    if held.own and held.leaked == 0:
        calibration = facts["calibration"]
        if calibration["temperature"] is None:
            warnings.append("The temperature cannot be estimated from these slices and remains 1.")
        if calibration["after"] is None:
            warnings.append(
                f"Calibration was not evaluated: too few {held.unit} to fit on one half and test on the other."
            )
    return warnings


def absent_warnings(facts: dict[str, Any], record: dict[str, Any]) -> list[str]:
    """The warnings. facts: content of `evaluation.json`. record: content of `run.json`."""
    here = [label for label, count in facts["data"]["slices_by_class"].items() if not count]
    never = [label for label, count in record["data"]["slices_by_class"].items() if not count]
    warnings = []
    if here:
        warnings.append(
            f"NO SLICE OF {', '.join(here)}: metrics of this class are not estimable, and means over classes do not "
            "include it."
        )
    if never:
        warnings.append(
            f"NEVER TRAINED ON {', '.join(never)}: the training data has no slice of this class, so its predicted "
            "probability is meaningless."
        )
    return warnings
