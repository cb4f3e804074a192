"""What a reader of an evaluation must know before any figure, and whether it fails."""

from __future__ import annotations

from typing import Any

from stageproof.runtime.text.hints import program
from stageproof.train.evaluate.negative_controls import control_fails
from stageproof.train.reports.formatting import power_sentence
from stageproof.train.test_set.held_out import HeldOut

_OF = {"patients": "show a patient", "groups": "are of a group"}


def is_control(facts: dict[str, Any]) -> bool:
    """Whether the run that `evaluation.json` is of was trained on shuffled labels."""
    return facts["control"]["shuffled_labels"] is not None


def fails(facts: dict[str, Any]) -> bool:
    """Whether a control that `evaluation.json` holds failed, or patients that were trained on were evaluated."""
    identity, shuffled = facts["control"].get("identity"), facts["control"]["permutation"]
    learned = is_control(facts) and shuffled is not None and control_fails(shuffled)
    return learned or _contradicted(facts, identity) or bool(facts["data"]["leaked"])


def _contradicted(facts: dict[str, Any], identity: dict[str, Any] | None) -> bool:
    """Whether the images show people in training and test whom the ids put in one of them only."""
    return identity is not None and not identity["holds"] and facts["data"]["leaked"] == 0


def warnings_of(held: HeldOut, facts: dict[str, Any]) -> list[str]:
    """What a reader must know before any figure."""
    said = []
    if is_control(facts):
        shuffled = facts["control"]["permutation"]
        told = f"; as good by luck: p = {shuffled['p']:.3f}" if shuffled else ""
        power = f" {power_sentence(shuffled, facts['data']['patients'])}" if shuffled else ""
        said.append(f"CONTROL: this run was trained on shuffled labels. Its figures must be at chance{told}.{power}")
    if held.leaked:
        said.append(
            f"LEAKAGE: {held.leaked:.0%} of these slices {_OF[held.unit or 'patients']} the run was trained on. "
            "The figures say nothing about new patients, and no temperature was fitted. Train with --split patient."
        )
    if held.unit is None:
        where = "both in training and among these slices" if held.own else "the run was trained on among these"
        said.append(
            f"PATIENTS UNKNOWN: there may be people {where}, and then the figures are too high. They have no interval, "
            "and nothing was calibrated: nobody knows how many people they rest on."
        )
        if held.patients_from == "pixels":
            said.append(
                "This run identified patients from image similarity with a method of version 0.1 that could take one "
                "person for several. Train again, or give the ids: --groups or --patient-pattern."
            )
    elif held.unit == "groups":
        said.append(
            "GROUPS, NOT PATIENTS: a group may be several people, or one scan of somebody who has others. Intervals "
            "are over groups, and no figure is about patients."
        )
    if not held.compared:
        said.append(
            "NOT CHECKED: the data that the run was made with is gone or has changed, so slices it was trained on may "
            "be among these."
        )
    if held.seen:
        said.append(f"{held.seen} slices were left out: they show somebody of the data the run was made with.")
    if held.undecided:
        said.append(f"{held.undecided} slices were left out: they may be of several of the groups.")
    identity = facts["control"]["identity"]
    if identity and _contradicted(facts, identity):
        said.append(
            f"THE SPLIT IS CONTRADICTED: {identity['shown']:.1%} of these slices show a head of the training slices, "
            "by the images alone, though the ids say that nobody is in both. Check the ids: "
            f"{program('train.audit')}."
        )
    if facts["selected_on_evaluated"]:
        said.append(
            "SELECTED ON THESE SLICES: this run chose its epoch (--keep or --patience) on the slices that are reported "
            "here, so the figures are too high. Train again: the epoch is then selected on other patients."
        )
    if held.own and held.leaked == 0:
        calibration = facts["calibration"]
        if calibration["temperature"] is None:
            said.append("No temperature can be estimated from these slices; it stays 1.")
        if calibration["after"] is None:
            said.append(f"Too few {held.unit} to fit on one half and judge on the other: calibration was not judged.")
    return said
