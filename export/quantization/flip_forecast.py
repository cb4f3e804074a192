"""Estimates the probability that a candidate passes the gate, from its logit errors on other patients.

An error is the difference of the artifact's logits from the reference's. Errors of one patient are correlated, so
patients are resampled, not images: each patient of the gate gets the errors of a randomly drawn measured patient, and
each image one of these errors. The patients' weights are drawn anew each time (Bayesian bootstrap, Rubin 1981), since
few patients were measured. The gate's rule is applied to each draw.
"""

from __future__ import annotations

import numpy as np

from stageproof.export.statistics.clustered import Counts, within
from stageproof.runtime.softmax import probabilities

DRAWS = 400
_AT_ONCE = 64  # images for which all errors are evaluated in memory at once


def changes(
    reference: np.ndarray, errors: np.ndarray, temperature: float = 1.0, abstain_below: float = 0.0
) -> np.ndarray:
    """(N, M) bool: whether error m changes the predicted class or the abstention of image n.

    reference: (N, classes) float32 logits. errors: (M, classes) float32, the artifact's logits minus the reference's,
    on other images.
    """
    predicted = reference.argmax(1)
    sure = probabilities(reference, temperature).max(1) >= abstain_below
    found = np.empty((len(reference), len(errors)), bool)
    for start in range(0, len(reference), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        moved = reference[part, None] + errors
        found[part] = moved.argmax(2) != predicted[part, None]
        if abstain_below:
            flat = probabilities(moved.reshape(-1, moved.shape[2]), temperature).max(1).reshape(moved.shape[:2])
            found[part] |= (flat >= abstain_below) != sure[part, None]
    return found


def probability_to_pass(
    changed: np.ndarray,
    people: np.ndarray | None,
    measured: np.ndarray | None,
    tolerance: float,
    confidence: float,
    seed: int = 0,
) -> float:
    """Probability, in [0, 1], that the gate passes; 0 if not even an artifact without changes passes.

    changed: (N, M) bool, from `changes`. people: (N,) int, patients of the gate's images; None if unknown.
    measured: (M,) int, patient of each error; None for independent errors.
    """
    random = np.random.default_rng(seed)
    images, errors = changed.shape
    of_gate = np.arange(images) if people is None else np.unique(people, return_inverse=True)[1]
    of_errors = np.arange(errors) if measured is None else np.unique(measured, return_inverse=True)[1]
    order, sizes = np.argsort(of_errors, kind="stable"), np.bincount(of_errors)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    passed = 0
    for _ in range(DRAWS):
        weights = random.dirichlet(np.ones(len(sizes)))
        drawn = random.choice(len(sizes), int(of_gate.max()) + 1, p=weights)[of_gate]
        which = order[starts[drawn] + (random.random(images) * sizes[drawn]).astype(np.int64)]
        answers = changed[np.arange(images), which]
        if tolerance:
            passed += within(Counts.of(answers, people), tolerance, confidence)
        else:
            passed += not answers.any()
    return passed / DRAWS
