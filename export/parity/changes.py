"""Counts of the predictions that an artifact changes: per class, per status and per study, with upper bounds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from stageproof.export.parity.served import Serve, Served, differing, named, statuses
from stageproof.export.statistics.binomial import lower_bound, upper_bound
from stageproof.export.statistics.clustered import Counts, bound

WORTH_A_BOUND = 0.2
"""A class patients upper bound would exceed this even with no changed prediction has too few images or patients."""


def bounds_by_class(
    flips: np.ndarray, predicted: np.ndarray, labels: Sequence[str], people: np.ndarray | None, confidence: float
) -> dict[str, float | None]:
    """Class predicted by the reference → upper bound on the share of its predictions that change, in [0, 1]; None for a
    class with too few images or patients.

    flips: (N,) bool, the prediction changed. predicted: (N,) int, the reference's predictions.
    people: (N,) int, patient of each image, or None.
    """
    found: dict[str, float | None] = {}
    for index, label in enumerate(labels):
        members = predicted == index
        patients = None if people is None else people[members]
        none = np.zeros(int(members.sum()), bool)
        enough = members.any() and bound(Counts.of(none, patients), confidence) <= WORTH_A_BOUND
        found[label] = bound(Counts.of(flips[members], patients), confidence) if enough else None
    return found


def changed_answers(
    reference: np.ndarray, artifact: np.ndarray, flips: np.ndarray, serve: Serve | None, confidence: float
) -> tuple[np.ndarray, dict[str, Any], dict[str, Any] | None]:
    """(changed, statuses, studies): (N,) bool, the predicted class or the runtime's answer changed; counts of the
    statuses, JSON-ready; counts of changed studies, JSON-ready, None if patients are unknown.

    reference, artifact: (N, classes) float32 logits. flips: (N,) bool, the predicted class changed.
    serve: converts logits to the runtime's answers; None to compare predicted classes only.
    """
    if serve is None:
        return flips, {}, None
    before, after = serve(reference), serve(artifact)
    visible = differing(before.images, after.images)
    facts = {"reference": statuses(before.images), "changes": named(before.images, after.images)}
    return flips | visible, facts, _studies(before, after, confidence)


def _studies(before: Served, after: Served, confidence: float) -> dict[str, Any] | None:
    if not before.studies:
        return None
    changed, total = int(differing(before.studies, after.studies).sum()), len(before.studies)
    return {
        "studies": total,
        "changed": changed,
        "lower_bound": lower_bound(changed, total, confidence),
        "upper_bound": upper_bound(changed, total, confidence),
        "reference": statuses(before.studies),
        "changes": named(before.studies, after.studies),
    }
