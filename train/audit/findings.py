"""Computes the findings of an audit, as in `audit.json`. `train.audit.text` formats them as text."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import numpy as np

from stageproof.runtime.labels import LabelSet
from stageproof.train.audit.leakage import nearest_neighbour, shared_patients
from stageproof.train.audit.linear_baseline import linear_baseline
from stageproof.train.data.decode import Slices, Unreadable
from stageproof.train.data.identity.identify import Identified
from stageproof.train.data.leak_bound import leak_bound
from stageproof.train.data.patients.from_pixels import Patients
from stageproof.train.data.samples import Samples
from stageproof.train.data.sources.predefined_splits import in_training
from stageproof.train.metrics.classification import class_counts

FEWEST_PEOPLE = 5
"""Minimum number of patients of a class such that each of five folds can hold out one."""


def find(
    samples: Samples,
    slices: Slices,
    unreadable: Sequence[Unreadable],
    who: Identified,
    patients: Patients,
    part: np.ndarray | None = None,
) -> dict[str, Any]:
    """All findings, JSON-serialisable; None for those that need known patients if patients are unknown.

    who: the patients used. patients: those identified from image similarity. part: (N,) str, folder of each slice in a
    predefined split; None if the data has none.
    """
    known, labels, classes = who.unit == "patients", slices.labels, samples.classes
    # Counts use the ids as given. Ids of the same patient (by image similarity) are merged for splits only.
    groups = who.ids.subjects if known and who.ids is not None else who.groups
    groups = np.unique(groups, return_inverse=True)[1]  # renumbered: all files of a patient may be unreadable
    different = len({sha256(picture).digest() for picture in slices.thumbnails})
    return {
        "source": samples.source,
        **classes.to_dict(),
        "slices": len(slices),
        "slices_by_class": class_counts(labels, classes),
        "unreadable": [{"name": item.name, "reason": item.reason} for item in unreadable],
        "not_taken": [str(skipped) for skipped in samples.skipped],
        "identical_slices": len(slices) - different,
        "near_duplicates": max(different - int(patients.repeats.max()) - 1, 0),
        **who.facts(),
        "ids_from": who.origin if who.ids is not None else None,
        "ids_not_used": list(who.notes),
        "patients_found": patients.found,
        "similarity": patients.similarity(),
        "augmented_copies": int(patients.moved.sum()) if patients.found else None,
        **_of_patients(groups if known else None, slices, classes, patients),
        **_of_ids(who, slices.names, patients),
        **_of_random_split(who, slices, groups),
        "given_split": None if part is None else _given_split(part, who, patients),
        "largest_class": float(np.bincount(labels).max() / len(labels)),
    }


def _of_patients(groups: np.ndarray | None, slices: Slices, classes: LabelSet, patients: Patients) -> dict[str, Any]:
    """Findings about patients; each is None if they are unknown. groups: (N,) int64 from 0, or None if unknown."""
    names = ("patients", "patients_by_class", "too_few_people", "slices_a_patient", "patients_with_two_labels")
    if groups is None:
        return dict.fromkeys((*names, "label_conflicts", "linear_baseline"))
    labels, sizes = slices.labels, np.bincount(groups)
    conflicts = _two_labels(groups, labels, classes, slices.names)
    people = class_counts(labels[np.unique(groups, return_index=True)[1]], classes)
    return {
        "patients": len(sizes),
        "patients_by_class": people,
        "too_few_people": [name for name, count in people.items() if 0 < count < FEWEST_PEOPLE],
        "slices_a_patient": [int(sizes.min()), float(np.median(sizes)), int(sizes.max())],
        "patients_with_two_labels": len(conflicts),
        "label_conflicts": conflicts,
        "linear_baseline": linear_baseline(slices.thumbnails, labels, groups, classes, patients.moved),
    }


def _of_ids(who: Identified, names: Sequence[str], patients: Patients) -> dict[str, Any]:
    """Findings of the check of the ids against image similarity; None if the data has no ids."""
    if who.ids is None or who.check is None:
        return {"slices_like_another_patient": None, "twins": None, "two_heads": None}
    likes = who.check.doubled
    if patients.verdict == "patients":
        likes = max(likes, _like_another(who.ids.subjects, patients))
    return {
        "slices_like_another_patient": likes,
        "twins": [[names[one], names[other]] for one, other in who.check.pairs],
        "two_heads": [[names[one], names[other]] for one, other in who.check.two_heads],
    }


def _of_random_split(who: Identified, slices: Slices, groups: np.ndarray) -> dict[str, Any]:
    """Leakage of a random split by slice: exact if patients are known, else a lower bound."""
    decided = ~who.undecided
    neighbour = nearest_neighbour(slices.thumbnails[decided], slices.labels[decided], groups[decided])
    found: dict[str, Any] = {
        "shared_by_random_split": None,
        "random_split_leaks_at_least": None,
        "slices_with_another_of_their_head": None,
        "nearest_neighbour_any_slice": neighbour.any_slice,
        "nearest_neighbour_other_patients": None,
        "nearest_neighbour_other_groups": None,
    }
    if who.unit == "patients":
        shared = shared_patients(who.groups)
        return {**found, "shared_by_random_split": shared, "nearest_neighbour_other_patients": neighbour.other_patients}
    bound = leak_bound(slices.thumbnails, slices.labels)
    at_least = bound.leaked
    if who.ids is not None and who.ids.scans:  # all slices of a scan show one patient
        at_least = max(at_least, shared_patients(who.groups))
    found |= {"random_split_leaks_at_least": at_least, "slices_with_another_of_their_head": bound.linked}
    return {**found, "nearest_neighbour_other_groups": neighbour.other_patients if who.unit else None}


def _two_labels(
    groups: np.ndarray, labels: np.ndarray, classes: LabelSet, names: Sequence[str]
) -> list[dict[str, Any]]:
    """The patients with slices of several classes: number of slices by class, and one file of each class."""
    found = []
    for group in np.unique(groups):
        mine = np.flatnonzero(groups == group)
        mixed, first = np.unique(labels[mine], return_index=True)
        if len(mixed) > 1:
            counts = {classes.names[label]: int((labels[mine] == label).sum()) for label in mixed}
            found.append({"group": int(group), "slices": counts, "files": [names[mine[at]] for at in first]})
    return found


def _like_another(groups: np.ndarray, patients: Patients) -> int:
    """Number of slices whose id differs from the most frequent id of their patient (by image similarity)."""
    pairs, counts = np.unique(np.stack([patients.groups, groups]), axis=1, return_counts=True)
    largest = np.zeros(patients.groups.max() + 1, np.int64)
    np.maximum.at(largest, pairs[0], counts)
    return int(len(groups) - largest.sum())


def _given_split(part: np.ndarray, who: Identified, patients: Patients) -> dict[str, Any]:
    """Slices by folder; share of test slices with a near-duplicate in training, or with their patient in training."""
    decided = ~who.undecided
    training = in_training(part)
    names, counts = np.unique(part, return_counts=True)
    found: dict[str, Any] = {"slices_by_folder": dict(zip(names.tolist(), counts.tolist(), strict=True))}
    if not training.any() or training.all():
        return {**found, "training": None, "repeated_in_training": None, "own_patient_in_training": None}
    test, own = ~training, None
    repeated = float(np.isin(patients.repeats[test], patients.repeats[training]).mean())
    if who.unit and (test & decided).any():
        own = float(np.isin(who.groups[test & decided], who.groups[training & decided]).mean())
    return {
        **found,
        "training": int(training.sum()),
        "repeated_in_training": repeated,
        "own_patient_in_training": own,
    }
