"""What the gate may be expected to find, from an artifact's errors on other images than the gate's."""

from __future__ import annotations

import numpy as np

from export.statistics import upper_bound


def most_flips(images: int, tolerance: float) -> int:
    """How many changed decisions of so many a tolerance on their upper bound allows; -1 where even none is too many."""
    if not tolerance:
        return 0
    flips = -1
    while flips < images and upper_bound(flips + 1, images) <= tolerance:
        flips += 1
    return flips


def flip_chances(reference: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """(N,) the chance of each decision to change, when an error is any of those measured elsewhere.

    reference: (N, classes) float32 logits whose decisions are asked about.
    errors: (M, classes) float32, logits of the artifact less those of the reference, on other images.
    """
    decided = reference.argmax(1)[:, None]
    changed = np.concatenate([(part[:, None] + errors).argmax(2) for part in np.array_split(reference, 16)]) != decided
    chances: np.ndarray = changed.mean(1)
    return chances


def chance_of_at_most(events: int, chances: np.ndarray) -> float:
    """The chance of at most so many of independent events, of which each has its own (Poisson binomial), in [0, 1]."""
    if events < 0:
        return 0.0
    counts = np.zeros(events + 1)
    counts[0] = 1.0
    for chance in chances:
        counts[1:] = counts[1:] * (1 - chance) + counts[:-1] * chance
        counts[0] *= 1 - chance
    return float(counts.sum())
