"""`figures`: validation metrics over slices and patients, without intervals."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from stageproof.runtime.labels import LABELS
from stageproof.runtime.predictor import probabilities


def figures(
    logits: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    not_estimable: Collection[str] = (),
    unit: str | None = "patients",
) -> dict[str, Any]:
    """Accuracy over slices and patients, recall by class, and numbers of slices and patients; JSON-serialisable.

    unit: what a group is, as `train.data.identity.identify.Identified.unit`. `patients`, `patient_accuracy` and
    `patients_by_class` are present only for ``patients``; the number of groups only for ``groups``.

    logits: (N, classes) float. labels: (N,) int64. groups: (N,) int64; the prediction for a patient is the mean of the
    probabilities over the slices. Classes without slices and those of `not_estimable` have recall None; balanced
    accuracy is the mean over the others, None if there are none.
    """
    chances = probabilities(logits)
    correct = chances.argmax(1) == labels
    recalls = [
        float(correct[labels == label].mean()) if (labels == label).any() and name not in not_estimable else None
        for label, name in enumerate(LABELS)
    ]
    measured = [recall for recall in recalls if recall is not None]
    return {
        "slices": len(labels),
        "accuracy": float(correct.mean()),
        "balanced_accuracy": float(np.mean(measured)) if measured else None,
        "largest_class": float(np.bincount(labels).max() / len(labels)),
        "recall": dict(zip(LABELS, recalls, strict=True)),
        **(_of_patients(chances, labels, groups) if unit == "patients" else {}),
        **({"groups": len(np.unique(groups))} if unit == "groups" else {}),
    }


def _of_patients(chances: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> dict[str, Any]:
    patients, position = np.unique(groups, return_inverse=True)
    mean = np.zeros((len(patients), chances.shape[1]))
    np.add.at(mean, position, chances)
    truth = np.array([np.bincount(labels[position == index]).argmax() for index in range(len(patients))])
    return {
        "patients": len(patients),
        "patient_accuracy": float((mean.argmax(1) == truth).mean()),
        "patients_by_class": {label: int((truth == index).sum()) for index, label in enumerate(LABELS)},
    }
