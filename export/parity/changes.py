"""How many answers an artifact changes, counted over people: images, statuses, studies, and each class by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from stageproof.export.parity.served import Serve, Served, differing, named, statuses
from stageproof.export.statistics.binomial import lower_bound, upper_bound
from stageproof.export.statistics.clustered import Counts, bound

WORTH_A_BOUND = 0.2
"""A class of whose images even no change leaves a larger upper bound has too few of them, or of too few people."""


def bounds_by_class(
    flips: np.ndarray, decided: np.ndarray, labels: Sequence[str], people: np.ndarray | None, confidence: float
) -> dict[str, float | None]:
    """By the reference's class: upper bound on the share of its predictions that change; None where there are too few.

    flips: (N,) bool. decided: (N,) int, the reference's class of each image.
    """
    found: dict[str, float | None] = {}
    for index, label in enumerate(labels):
        mine = decided == index
        whose = None if people is None else people[mine]
        enough = mine.any() and bound(Counts.of(np.zeros(int(mine.sum()), bool), whose), confidence) <= WORTH_A_BOUND
        found[label] = bound(Counts.of(flips[mine], whose), confidence) if enough else None
    return found


def seen(
    reference: np.ndarray, artifact: np.ndarray, flips: np.ndarray, serve: Serve | None, confidence: float
) -> tuple[np.ndarray, dict[str, Any], dict[str, Any] | None]:
    """What changes for a user: (N,) bool images whose prediction or answer changes, JSON-ready facts of the statuses,
    and of the studies, which is None where nobody knows the people.

    reference, artifact: (N, classes) float32 logits. flips: (N,) bool, the most probable class changes.
    serve: gives the answers to logits; None where only predictions are compared.
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
