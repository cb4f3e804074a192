"""The probability that a candidate passes the gate, from its errors on other people than the gate's.

An error is what an artifact adds to the reference's logits. Those of one person are alike, so people are drawn, not
images: each person of the gate gets the errors of a person drawn from those measured, and each of its images one of
them. How common which person is gets drawn anew each time (Bayesian bootstrap, Rubin 1981), since few were measured.
Each draw is judged by the gate's own rule.
"""

from __future__ import annotations

import numpy as np

from stageproof.export.statistics.binomial import upper_bound
from stageproof.export.statistics.clustered import Counts, within
from stageproof.runtime.softmax import probabilities

DRAWS = 400
_AT_ONCE = 64  # images whose answers under every error are in memory


def most_flips(images: int, tolerance: float) -> int:
    """How many changed decisions of so many independent images a tolerance on their upper bound allows; -1 where even
    none is too many."""
    if not tolerance:
        return 0
    flips = -1
    while flips < images and upper_bound(flips + 1, images) <= tolerance:
        flips += 1
    return flips


def changes(
    reference: np.ndarray, errors: np.ndarray, temperature: float = 1.0, abstain_below: float = 0.0
) -> np.ndarray:
    """(N, M) bool: whether the answer to an image changes under an error: its most probable class, or whether it
    abstains.

    reference: (N, classes) float32 logits. errors: (M, classes) float32, logits of the artifact less those of the
    reference, on other images.
    """
    decided = reference.argmax(1)
    sure = probabilities(reference, temperature).max(1) >= abstain_below
    found = np.empty((len(reference), len(errors)), bool)
    for start in range(0, len(reference), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        moved = reference[part, None] + errors
        found[part] = moved.argmax(2) != decided[part, None]
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
    """Probability, in [0, 1], that the gate passes; 0 where not even an artifact without a change does.

    changed: (N, M) bool, from `changes`. people: (N,) int, of the gate's images; None where unknown.
    measured: (M,) int, the person of each error; None: each by itself.
    """
    random = np.random.default_rng(seed)
    images, errors = changed.shape
    mine = np.arange(images) if people is None else np.unique(people, return_inverse=True)[1]
    theirs = np.arange(errors) if measured is None else np.unique(measured, return_inverse=True)[1]
    order, sizes = np.argsort(theirs, kind="stable"), np.bincount(theirs)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    passed = 0
    for _ in range(DRAWS):
        weights = random.dirichlet(np.ones(len(sizes)))
        drawn = random.choice(len(sizes), int(mine.max()) + 1, p=weights)[mine]
        which = order[starts[drawn] + (random.random(images) * sizes[drawn]).astype(np.int64)]
        answers = changed[np.arange(images), which]
        if tolerance:
            passed += within(Counts.of(answers, people), tolerance, confidence)
        else:
            passed += not answers.any()
    return passed / DRAWS
