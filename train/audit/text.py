"""Formats the findings of an audit as text for a terminal with 80 columns."""

from __future__ import annotations

import math
from typing import Any

from stageproof.runtime.labels import LabelSet
from stageproof.train.data.ids import WORDS
from stageproof.train.data.unknown import WHAT_TO_DO
from stageproof.train.reports.formatting import positive_classes, question
from stageproof.train.reports.terminal import table
from stageproof.train.runs.record import reported_classes


def lines(findings: dict[str, Any]) -> list[str]:
    """The findings as lines. findings: the content of `audit.json`."""
    heads, rows = class_counts(findings)
    counts = table(("", *heads[1:]), rows, (17, 8, 9)[: len(heads)], right=(1, 2))
    return [*counts, "", *table((), statements(findings), (11, 63))]


def statements(findings: dict[str, Any]) -> list[tuple[str, str]]:
    """The findings except for the counts, each as (heading, text)."""
    verdict = findings["verdict"]
    return [
        *_item("unreadable", f"{len(findings['unreadable'])} files"),
        *(item for skipped in findings["not_taken"] for item in _item("ignored", skipped)),
        *_item("identical", f"{findings['identical_slices']} slices are identical to another one"),
        *_item("near", f"{findings['near_duplicates']} near-duplicates (differ only in compression)"),
        *_who(findings),
        *_ids(findings),
        *(_patients(findings) if verdict == "patients" else []),
        *_leakage(findings),
        *_given(findings["given_split"], verdict),
        *_nearest(findings),
        *_linear(findings["linear_baseline"], reported_classes(findings)),
        *(_item("next", WHAT_TO_DO) if verdict == "unknown" else []),
    ]


def headline(findings: dict[str, Any]) -> str:
    """The main result, in one sentence."""
    shared, bound = findings["shared_by_random_split"], findings["random_split_leaks_at_least"]
    count = f"{findings['slices']} slices"
    if shared is not None:
        return f"{count} of {findings['patients']} patients; in a random split, {shared:.0%} of the test slices leak."
    known = f"{findings['groups']} groups" if findings["verdict"] == "groups" else "unknown patients"
    leaks = f"at least {math.floor(100 * bound)}%" if bound >= 0.005 else "an unknown share"
    return f"{count} of {known}; in a random split, {leaks} of the test slices leak."


def class_counts(findings: dict[str, Any]) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Heads and rows of the table of slices by class, and of patients if they are known."""
    slices, people = findings["slices_by_class"], findings["patients_by_class"]
    columns = [slices, people] if people else [slices]
    rows = [(name, *(str(column[name]) for column in columns)) for name in slices]
    totals = [str(findings[name]) for name in ("slices", "patients")[: len(columns)]]
    return ("class", "slices", "patients")[: 1 + len(columns)], (*rows, ("all", *totals))


def _who(findings: dict[str, Any]) -> list[tuple[str, str]]:
    """The patients or groups, and how they were identified."""
    verdict, kind = findings["verdict"], findings["patients_told_by"]
    if verdict == "unknown":
        return _item(
            "patients",
            "UNKNOWN: no ids were found, and image similarity does not identify the patients. A split by patient is "
            "not possible.",
        )
    if verdict == "groups":
        if kind == "pixels":
            return _item(
                "groups",
                f"{findings['groups']} groups from image similarity. A group contains all slices of one or more "
                f"patients; the number of patients is unknown. {_error(findings)}",
            ) + _undecided(findings)
        scans = "The ids may be those of scans; the number of patients is unknown."
        several = "A group may contain several patients; the number of patients is unknown."
        return _item(
            "groups",
            f"{findings['groups']} groups from {WORDS[kind]}. {scans if findings['ids_may_be_scans'] else several}",
        ) + _undecided(findings)
    least, middle, most = findings["slices_a_patient"]
    span = f"{most}" if least == most else f"{least} to {most} (median {middle:g})"
    if kind == "pixels":
        text = f"identified from image similarity, {span} slices each. {_error(findings)}"
    else:
        sessions = f" in {findings['sessions']} sessions" if findings["sessions"] else ""
        text = f"from {WORDS[kind]}, {span} slices each{sessions}"
    return _item("patients", text)


def _undecided(findings: dict[str, Any]) -> list[tuple[str, str]]:
    if not findings["undecided"]:
        return []
    return _item("left out", f"{findings['undecided']} slices may belong to several groups and are left out of splits")


def _error(findings: dict[str, Any]) -> str:
    return f"Probability that any patient is in two of them: at most {findings['similarity']['error']:.2g}"


def _ids(findings: dict[str, Any]) -> list[tuple[str, str]]:
    """The source of the ids, conflicts with image similarity, and ids that were found but not used."""
    text = _item("ids", findings["ids_from"]) if findings["ids_from"] else []
    check = findings["id_check"]
    if check and check["joined_ids"]:
        first, second = findings["twins"][0]
        text += _item(
            "TWO IDS",
            f"{check['joined_ids']} ids show the same patient as another id, and {check['twin_slices']} slices are "
            f"near-duplicates with two ids. These ids are merged for splits. Example: {first} and {second}",
        )
    if check and findings["two_heads"]:
        first, second = findings["two_heads"][0]
        text += _item(
            "DOUBTFUL",
            f"{len(findings['two_heads'])} ids seem to show two patients each. Example: {first} and {second}",
        )
    if findings["slices_like_another_patient"]:
        text += _item(
            "DOUBTFUL", f"{findings['slices_like_another_patient']} slices resemble a patient with another id"
        )
    for note in findings["ids_not_used"]:
        text += _item("not used", note)
    return text


def _patients(findings: dict[str, Any]) -> list[tuple[str, str]]:
    text: list[tuple[str, str]] = []
    if findings["augmented_copies"]:
        text += _item("copies", f"{findings['augmented_copies']} slices are rotated, flipped, shifted or zoomed copies")
    text += _item("labels", f"{findings['patients_with_two_labels']} patients have slices of several classes")
    for name in findings["too_few_people"]:
        count = findings["patients_by_class"][name]
        text += _item("too few", f"{name}: {count} patients, too few to estimate metrics of this class")
    return text


def _leakage(findings: dict[str, Any]) -> list[tuple[str, str]]:
    """Leakage of a random split: exact if patients are known, else a lower bound."""
    shared = findings["shared_by_random_split"]
    if shared is not None:
        return _item(
            "LEAKAGE", f"in a random split, {shared:.0%} of the test slices show a patient of the training set"
        )
    bound, linked = findings["random_split_leaks_at_least"], findings["slices_with_another_of_their_head"]
    if bound < 0.005:
        return _item("leakage", "unknown for a random split: no two slices are certain to show one patient")
    return _item(
        "LEAKAGE",
        f"in a random split, at least {math.floor(100 * bound)}% of the test slices show a patient who is also in "
        f"training. {math.floor(100 * linked)}% of the slices have a nearest neighbour far more similar than expected "
        "between two patients",
    )


def _nearest(findings: dict[str, Any]) -> list[tuple[str, str]]:
    copied, largest = findings["nearest_neighbour_any_slice"], findings["largest_class"]
    text = f"{copied:.1%} accuracy of predicting the class of the most similar slice; "
    for unit in ("patients", "groups"):
        other = findings[f"nearest_neighbour_other_{unit}"]
        if other is not None:
            text += f"{other:.1%} if that slice is of another {unit[:-1]}; "
    return _item("nearest", f"{text}{largest:.1%} for always predicting the largest class")


def _linear(found: dict[str, Any] | None, classes: LabelSet) -> list[tuple[str, str]]:
    if found is None:
        return []
    auc, right = (found[name] for name in ("auc", "accuracy"))
    span = "" if auc["low"] is None else f" [{auc['low']:.3f}, {auc['high']:.3f}]"
    return _item(
        "linear",
        f"baseline for a network: a linear model on mean thumbnails classifies {right['value']:.1%} of unseen patients "
        f"correctly as {question(classes)} ({found['largest']:.1%} by always predicting the larger class), AUC "
        f"{auc['value']:.3f}{span}. {positive_classes(classes)}".rstrip(". "),
    )


def _given(given: dict[str, Any] | None, verdict: str) -> list[tuple[str, str]]:
    if given is None:
        return []
    folders = ", ".join(f"{name} {count}" for name, count in given["slices_by_folder"].items())
    text = f"{folders}."
    if given["repeated_in_training"] is not None:
        text += f" {given['repeated_in_training']:.0%} of the test slices are near-duplicates of training slices"
    items = _item("folders", text)
    if given["own_patient_in_training"] is not None:
        unit = "group" if verdict == "groups" else "patient"
        items += _item("LEAKAGE", f"{given['own_patient_in_training']:.0%} of them show a {unit} of the training set")
    return items


def _item(head: str, text: str) -> list[tuple[str, str]]:
    return [(head, text)]
