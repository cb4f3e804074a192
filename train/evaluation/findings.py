"""What the audit found: counted, and as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import numpy as np

from runtime.labels import LABELS
from train.data.loader import Slices, Unreadable
from train.data.parts import in_training
from train.data.patients import Patients
from train.evaluation.baseline import linear_baseline
from train.evaluation.leakage import nearest_neighbour, shared_patients

FEWEST_PEOPLE = 5
"""People that a class needs for each of the usual five folds to hold one out."""


def find(
    source: str,
    slices: Slices,
    unreadable: Sequence[Unreadable],
    patients: Patients,
    part: np.ndarray | None = None,
) -> dict[str, Any]:
    """Every finding, JSON-ready; None where it takes knowing who is who, and nobody does.

    slices.groups: who is who, where a file says so; the pixels tell otherwise. part: (N,) str, the folders that the
    slices are dealt to beforehand, when they are.
    """
    given = slices.groups is not None
    known = given or patients.found
    groups = slices.groups if slices.groups is not None else patients.groups
    labels = slices.labels
    sizes = np.bincount(groups)
    conflicts = _two_labels(groups, labels, slices.names) if known else None
    first = np.unique(groups, return_index=True)[1]
    neighbour = nearest_neighbour(slices.thumbnails, labels, groups)
    different = len({sha256(picture).digest() for picture in slices.thumbnails})
    people = _by_class(labels[first]) if known else None
    return {
        "source": source,
        "slices": len(slices),
        "slices_by_class": _by_class(labels),
        "unreadable": [{"name": item.name, "reason": item.reason} for item in unreadable],
        "identical_slices": len(slices) - different,
        "near_duplicates": max(different - int(patients.repeats.max()) - 1, 0),
        "patients_told_by": "file" if given else "pixels" if known else "nothing",
        "patients_found": patients.found,
        "similarity": patients.similarity(),
        "patients": len(sizes) if known else None,
        "patients_by_class": people,
        "too_few_people": [name for name, count in people.items() if 0 < count < FEWEST_PEOPLE] if people else None,
        "slices_a_patient": [int(sizes.min()), float(np.median(sizes)), int(sizes.max())] if known else None,
        "augmented_copies": int(patients.moved.sum()) if patients.found else None,
        "patients_with_two_labels": len(conflicts) if conflicts is not None else None,
        "label_conflicts": conflicts,
        "slices_like_another_patient": _like_another(groups, patients) if given and patients.found else None,
        "shared_by_random_split": shared_patients(groups) if known else None,
        "given_split": _given_split(part, groups if known else None, patients) if part is not None else None,
        "largest_class": float(np.bincount(labels).max() / len(labels)),
        "nearest_neighbour_any_slice": neighbour.any_slice,
        "nearest_neighbour_other_patients": neighbour.other_patients if known else None,
        "linear_baseline": linear_baseline(slices.thumbnails, labels, groups, patients.moved) if known else None,
    }


def _by_class(labels: np.ndarray) -> dict[str, int]:
    return {label: int((labels == index).sum()) for index, label in enumerate(LABELS)}


def _two_labels(groups: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
    """Each patient whose slices have more than one label: slices by class, and one file of each class."""
    found = []
    for group in np.unique(groups):
        mine = np.flatnonzero(groups == group)
        classes, first = np.unique(labels[mine], return_index=True)
        if len(classes) > 1:
            counts = {LABELS[label]: int((labels[mine] == label).sum()) for label in classes}
            found.append({"group": int(group), "slices": counts, "files": [names[mine[at]] for at in first]})
    return found


def _like_another(groups: np.ndarray, patients: Patients) -> int:
    """Slices that the pixels say are of one patient, and the file not: those outside the larger part."""
    pairs, counts = np.unique(np.stack([patients.groups, groups]), axis=1, return_counts=True)
    largest = np.zeros(patients.groups.max() + 1, np.int64)
    np.maximum.at(largest, pairs[0], counts)
    return int(len(groups) - largest.sum())


def _given_split(part: np.ndarray, groups: np.ndarray | None, patients: Patients) -> dict[str, Any]:
    """Slices by folder; of the test slices, the share that training repeats, and whose patient it shows."""
    training = in_training(part)
    names, counts = np.unique(part, return_counts=True)
    told: dict[str, Any] = {"slices_by_folder": dict(zip(names.tolist(), counts.tolist(), strict=True))}
    if not training.any() or training.all():
        return {**told, "training": None, "repeated_in_training": None, "own_patient_in_training": None}
    shown = [
        None if who is None else float(np.isin(who[~training], who[training]).mean())
        for who in (patients.repeats, groups)
    ]
    return {
        **told,
        "training": int(training.sum()),
        "repeated_in_training": shown[0],
        "own_patient_in_training": shown[1],
    }


def lines(findings: dict[str, Any]) -> list[str]:
    """The findings for a terminal of 80 columns."""
    people = findings["patients_by_class"] or dict.fromkeys(LABELS, "?")
    copied, largest = findings["nearest_neighbour_any_slice"], findings["largest_class"]
    text = [
        f"{'':<18}{'slices':>8}{'patients':>10}",
        *(f"{name:<18}{count:>8}{people[name]:>10}" for name, count in findings["slices_by_class"].items()),
        f"{'all':<18}{findings['slices']:>8}{findings['patients'] or '?':>10}",
        "",
        f"unreadable  {len(findings['unreadable'])} files",
        f"identical   {findings['identical_slices']} slices repeat another one",
        f"near        {findings['near_duplicates']} more do but for another compression",
    ]
    if findings["patients"] is None:
        return [
            *text,
            "patients    UNKNOWN: the pixels do not tell them apart clearly. No split of this",
            "            data can be shown to keep one person on one side.",
            *_given_lines(findings["given_split"]),
            f"nearest     {copied:.1%} right by copying the most alike other slice;",
            f"            always answering the largest class: {largest:.1%}",
        ]
    return [
        *text,
        *_patient_lines(findings),
        f"LEAKAGE     {findings['shared_by_random_split']:.0%} of the test slices of a random split have their own",
        "            patient in training",
        *_given_lines(findings["given_split"]),
        f"nearest     {copied:.1%} right by copying the most alike slice, without learning;",
        f"            {findings['nearest_neighbour_other_patients']:.1%} when that slice must be another patient's;",
        f"            always answering the largest class: {largest:.1%}",
        *_linear_lines(findings["linear_baseline"]),
    ]


def _linear_lines(found: dict[str, Any] | None) -> list[str]:
    if found is None:
        return []
    auc, right = (found[name] for name in ("auc", "accuracy"))
    span = "" if auc["low"] is None else f" [{auc['low']:.3f}, {auc['high']:.3f}]"
    return [
        f"linear      a linear model on mean thumbnails tells of {right['value']:.1%} of people it has",
        f"            not seen whether they are demented ({found['largest']:.1%} by one answer),",
        f"            AUC {auc['value']:.3f}{span}; a network has to beat that",
    ]


def _patient_lines(findings: dict[str, Any]) -> list[str]:
    least, middle, most = findings["slices_a_patient"]
    span = f"{most}" if least == most else f"{least} to {most} (median {middle:g})"
    similarity = findings["similarity"]
    text = [f"patients    have {span} slices each; told apart by the {findings['patients_told_by']}"]
    if findings["patients_found"]:
        text += [
            f"similarity  at most {similarity['below']:.4f} across patients, at least {similarity['above']:.4f} within",
            f"            probability that a patient is in two groups: at most {similarity['error']:.2g}",
        ]
    if findings["augmented_copies"]:
        text.append(f"copies      {findings['augmented_copies']} slices are turned, mirrored, shifted or zoomed ones")
    if findings["slices_like_another_patient"]:
        text.append(
            f"DOUBTFUL    {findings['slices_like_another_patient']} slices look like a patient the file tells apart"
        )
    text.append(f"labels      {findings['patients_with_two_labels']} patients have slices of two classes")
    counts = findings["patients_by_class"]
    for name in findings["too_few_people"]:
        text.append(f"too few     {name}: {counts[name]} people; no figure can be estimated for it")
    return text


def _given_lines(given: dict[str, Any] | None) -> list[str]:
    if given is None:
        return []
    folders = ", ".join(f"{name} {count}" for name, count in given["slices_by_folder"].items())
    text = [f"folders     {folders}"]
    if given["repeated_in_training"] is not None:
        text.append(f"            {given['repeated_in_training']:.0%} of the test slices are nearly a training slice")
    if given["own_patient_in_training"] is not None:
        text.append(f"LEAKAGE     {given['own_patient_in_training']:.0%} of them have their own patient in training")
    return text
