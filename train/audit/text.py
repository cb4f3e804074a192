"""What the audit found, as text for a terminal of 80 columns."""

from __future__ import annotations

import math
import textwrap
from typing import Any

from stageproof.runtime.labels import LABELS
from stageproof.train.data.ids import WORDS
from stageproof.train.data.unknown import WHAT_TO_DO

_WIDTH, _INDENT = 75, 12


def lines(findings: dict[str, Any]) -> list[str]:
    """The findings as lines. findings: the content of `audit.json`."""
    wrapped = [
        line
        for head, text in statements(findings)
        for line in textwrap.wrap(
            text, _WIDTH, initial_indent=f"{head:<{_INDENT}}", subsequent_indent=" " * _INDENT, break_on_hyphens=False
        )
    ]
    return [*_counts(findings), "", *wrapped]


def statements(findings: dict[str, Any]) -> list[tuple[str, str]]:
    """The findings beside the counts, each as a head and a text."""
    verdict = findings["verdict"]
    return [
        *_said("unreadable", f"{len(findings['unreadable'])} files"),
        *(said for skipped in findings["not_taken"] for said in _said("not taken", skipped)),
        *_said("identical", f"{findings['identical_slices']} slices repeat another one"),
        *_said("near", f"{findings['near_duplicates']} near-duplicates (differ only in compression)"),
        *_who(findings),
        *_ids(findings),
        *(_patients(findings) if verdict == "patients" else []),
        *_leakage(findings),
        *_given(findings["given_split"], verdict),
        *_nearest(findings),
        *_linear(findings["linear_baseline"]),
        *(_said("what to do", WHAT_TO_DO) if verdict == "unknown" else []),
    ]


def headline(findings: dict[str, Any]) -> str:
    """The one sentence that a reader should leave with."""
    shared, bound = findings["shared_by_random_split"], findings["random_split_leaks_at_least"]
    count = f"{findings['slices']} slices"
    if shared is not None:
        return f"{count} of {findings['patients']} patients; a random split would leak {shared:.0%} of its test slices."
    known = f"{findings['groups']} groups" if findings["verdict"] == "groups" else "unknown patients"
    leaks = f"at least {math.floor(100 * bound)}%" if bound >= 0.005 else "an unknown share"
    return f"{count} of {known}; a random split would leak {leaks} of its test slices."


def _counts(findings: dict[str, Any]) -> list[str]:
    """Slices by class, and patients where they are known."""
    people = findings["patients_by_class"]
    text = [f"{'':<18}{'slices':>8}{'patients' if people else '':>10}"]
    for name in LABELS:
        text.append(f"{name:<18}{findings['slices_by_class'][name]:>8}{people[name] if people else '':>10}")
    text.append(f"{'all':<18}{findings['slices']:>8}{findings['patients'] if people else '':>10}")
    return [line.rstrip() for line in text]


def _who(findings: dict[str, Any]) -> list[tuple[str, str]]:
    """Who the slices are of, and how that is known."""
    verdict, kind = findings["verdict"], findings["patients_told_by"]
    if verdict == "unknown":
        return _said(
            "patients",
            "UNKNOWN: no ids were found, and image similarity does not identify the patients. No split of this data "
            "can be shown to keep each person in one part.",
        )
    if verdict == "groups":
        if kind == "pixels":
            return _said(
                "groups",
                f"{findings['groups']} groups from image similarity, each of whole people: at least "
                f"{findings['groups']} people, how many is not known. {_error(findings)}",
            ) + _undecided(findings)
        scans = "An id may be that of a scan: how many people they are is not known."
        several = "A group may be several people: how many they are is not known."
        return _said(
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
    return _said("patients", text)


def _undecided(findings: dict[str, Any]) -> list[tuple[str, str]]:
    if not findings["undecided"]:
        return []
    return _said("left out", f"{findings['undecided']} slices may be of several of the groups: no split has them")


def _error(findings: dict[str, Any]) -> str:
    return f"Probability that some person is in two of them: at most {findings['similarity']['error']:.2g}"


def _ids(findings: dict[str, Any]) -> list[tuple[str, str]]:
    """Where ids were read, what the pixels say of them, and what was seen but not used."""
    text = _said("ids", findings["ids_from"]) if findings["ids_from"] else []
    check = findings["id_check"]
    if check and check["joined_ids"]:
        first, second = findings["twins"][0]
        text += _said(
            "TWINS",
            f"{check['joined_ids']} ids show a head that another id shows too, and {check['twin_slices']} slices are "
            f"nearly the same picture under two ids: joined for splits. Such as {first} and {second}",
        )
    if check and findings["two_heads"]:
        first, second = findings["two_heads"][0]
        text += _said(
            "DOUBTFUL",
            f"slices of {len(findings['two_heads'])} ids look like two heads under one id, as {first} and {second}",
        )
    if findings["slices_like_another_patient"]:
        text += _said("DOUBTFUL", f"{findings['slices_like_another_patient']} slices look like another id's patient")
    for note in findings["ids_not_used"]:
        text += _said("not used", note)
    return text


def _patients(findings: dict[str, Any]) -> list[tuple[str, str]]:
    text: list[tuple[str, str]] = []
    if findings["augmented_copies"]:
        text += _said("copies", f"{findings['augmented_copies']} slices are turned, mirrored, shifted or zoomed ones")
    text += _said("labels", f"{findings['patients_with_two_labels']} patients have slices of two classes")
    for name in findings["too_few_people"]:
        count = findings["patients_by_class"][name]
        text += _said("too few", f"{name}: {count} people; no figure can be estimated for it")
    return text


def _leakage(findings: dict[str, Any]) -> list[tuple[str, str]]:
    """What a random split leaks: exactly where the patients are known, else at least."""
    shared = findings["shared_by_random_split"]
    if shared is not None:
        return _said("LEAKAGE", f"{shared:.0%} of the test slices of a random split have their own patient in training")
    bound, linked = findings["random_split_leaks_at_least"], findings["slices_with_another_of_their_head"]
    if bound < 0.005:
        return _said("leakage", "of a random split: not known. No two slices are surely of one head")
    return _said(
        "LEAKAGE",
        f"a random split of this data leaks at least {math.floor(100 * bound)}%: so many of its test slices show a "
        f"head that is in training too. {math.floor(100 * linked)}% of the slices have a nearest neighbour far more "
        "similar than slices of two people are by chance",
    )


def _nearest(findings: dict[str, Any]) -> list[tuple[str, str]]:
    copied, largest = findings["nearest_neighbour_any_slice"], findings["largest_class"]
    text = f"{copied:.1%} right by copying the class of the most similar slice, without learning; "
    for unit in ("patients", "groups"):
        other = findings[f"nearest_neighbour_other_{unit}"]
        if other is not None:
            text += f"{other:.1%} when that slice must be another {unit[:-1]}'s; "
    return _said("nearest", f"{text}always answering the largest class: {largest:.1%}")


def _linear(found: dict[str, Any] | None) -> list[tuple[str, str]]:
    if found is None:
        return []
    auc, right = (found[name] for name in ("auc", "accuracy"))
    span = "" if auc["low"] is None else f" [{auc['low']:.3f}, {auc['high']:.3f}]"
    return _said(
        "linear",
        f"a linear model on mean thumbnails classifies {right['value']:.1%} of unseen patients right as demented or "
        f"not ({found['largest']:.1%} by always answering the larger), AUC {auc['value']:.3f}{span}; a network has to "
        "beat that",
    )


def _given(given: dict[str, Any] | None, verdict: str) -> list[tuple[str, str]]:
    if given is None:
        return []
    folders = ", ".join(f"{name} {count}" for name, count in given["slices_by_folder"].items())
    text = f"{folders}."
    if given["repeated_in_training"] is not None:
        text += f" {given['repeated_in_training']:.0%} of the test slices are nearly a training slice"
    said = _said("folders", text)
    if given["own_patient_in_training"] is not None:
        unit = "group" if verdict == "groups" else "patient"
        said += _said("LEAKAGE", f"{given['own_patient_in_training']:.0%} of them have their own {unit} in training")
    return said


def _said(head: str, text: str) -> list[tuple[str, str]]:
    return [(head, text)]
