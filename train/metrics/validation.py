"""`figures`: validation metrics over slices and patients, without intervals."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from stageproof.runtime.labels import LabelSet
from stageproof.runtime.softmax import probabilities
from stageproof.train.metrics.classification import Answers, class_counts


def figures(
    logits: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    classes: LabelSet,
    not_estimable: Collection[str] = (),
    unit: str | None = "patients",
) -> dict[str, Any]:
    """Accuracy over slices and patients, recall by class, and numbers of slices and patients; JSON-serialisable.

    unit: what a group is, as `train.data.identity.identify.Identified.unit`. `patients`, `patient_accuracy` and
    `patients_by_class` are present only for ``patients``; the number of groups only for ``groups``.

    logits: (N, classes) float. labels: (N,) int64, indices in `classes.names`. groups: (N,) int64; the prediction for a
    patient is the mean of the probabilities over the slices. Classes without slices and those of `not_estimable` have
    recall None; balanced accuracy is the mean over the others, None if there are none.
    """
    chances = probabilities(logits)
    correct = chances.argmax(1) == labels
    recalls = [
        float(correct[labels == label].mean()) if (labels == label).any() and name not in not_estimable else None
        for label, name in enumerate(classes.names)
    ]
    measured = [recall for recall in recalls if recall is not None]
    return {
        "slices": len(labels),
        "accuracy": float(correct.mean()),
        "balanced_accuracy": float(np.mean(measured)) if measured else None,
        "largest_class": float(np.bincount(labels).max() / len(labels)),
        "recall": dict(zip(classes.names, recalls, strict=True)),
        **(_of_patients(chances, labels, groups, classes) if unit == "patients" else {}),
        **({"groups": len(np.unique(groups))} if unit == "groups" else {}),
    }


def _of_patients(chances: np.ndarray, labels: np.ndarray, groups: np.ndarray, classes: LabelSet) -> dict[str, Any]:
    people = Answers(chances, labels, np.unique(groups, return_inverse=True)[1], classes).by_patient()
    return {
        "patients": len(people.labels),
        "patient_accuracy": float((people.decisions == people.labels).mean()),
        "patients_by_class": class_counts(people.labels, classes),
    }
