"""Checks that the reference's predictions on the comparison images can reveal a broken artifact.

If the reference predicts one class for all images, an artifact that ignores its input changes no prediction. A
comparison is evidence only if such an artifact would fail it, and only for the classes that the reference predicts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stageproof.export.statistics.binomial import minimum_images, upper_bound

LARGEST_SHARE = 0.95
"""Largest accepted share of images with the same prediction; above it, the other classes are not tested."""
LEAST_SPREAD = 1e-3
"""Smallest accepted range of a class's probability over the images; below it, the reference ignores its input."""
LEAST_IMAGES = minimum_images(0.2)
"""14 distinct images: with fewer, a share of 20 % changed predictions cannot be excluded at 95 % confidence."""
NEAR_TIE = 0.02
"""Difference of the two highest probabilities below which a prediction is a near-tie: small errors change it."""
SATURATED = 1e-6
"""Difference of the highest probability from 1 below which a prediction is saturated: even large logit errors change
no probability."""

_ADVICE = (
    "Compare on images of every class (--parity-data DIR_OR_PARQUET). If the predictions are the same there, the model "
    "has learned nothing: train again."
)


def answers(probabilities: np.ndarray, labels: Sequence[str]) -> dict[str, int]:
    """Class → number of images for which the reference predicts it.

    probabilities: (N, classes), rows sum to 1; rows that are not finite are skipped.
    """
    finite = probabilities[np.isfinite(probabilities).all(1)]
    counts = np.bincount(finite.argmax(1), minlength=len(labels)) if len(finite) else np.zeros(len(labels), int)
    return {label: int(count) for label, count in zip(labels, counts, strict=True)}


def not_tested(counts: dict[str, int]) -> tuple[str, ...]:
    """The classes that the reference never predicts: the comparison does not apply to them."""
    return tuple(label for label, count in counts.items() if not count)


def near_ties(probabilities: np.ndarray) -> np.ndarray:
    """(N,) bool: the two highest probabilities of the row differ by less than `NEAR_TIE`."""
    two = np.sort(probabilities, axis=1)[:, -2:]
    return two[:, 1] - two[:, 0] < NEAR_TIE


def saturated(probabilities: np.ndarray) -> np.ndarray:
    """(N,) bool: the highest probability of the row is 1 within `SATURATED`."""
    return probabilities.max(1) > 1 - SATURATED


def why_uninformative(probabilities: np.ndarray, labels: Sequence[str]) -> str:
    """Why a comparison with this reference cannot reveal a broken artifact; "" if it can.

    probabilities: (N, classes) of the reference, rows sum to 1.
    """
    total = len(probabilities)
    broken = int((~np.isfinite(probabilities).all(1)).sum())
    if broken:
        return f"the reference returns NaN or infinity for {broken} of {total} images: no artifact can be compared."
    counts = answers(probabilities, labels)
    label = max(counts, key=lambda name: counts[name])
    if counts[label] > LARGEST_SHARE * total:
        return (
            f"the reference predicts {label} for {counts[label] / total:.1%} of {total} images: too uniform to compare "
            f"with. An artifact that always predicts {label} would change only {total - counts[label]} predictions. "
            f"{_ADVICE}"
        )
    if (spread := _spread(probabilities)) < LEAST_SPREAD:
        return (
            f"the reference ignores its input: no probability differs by more than {spread:.1e} between any two of "
            f"{total} images, so no artifact can be compared. {_ADVICE}"
        )
    return ""


def why_too_loose(probabilities: np.ndarray, labels: Sequence[str], probability: float, flips: float) -> str:
    """Message that the tolerances are so large that an artifact ignoring its input would pass; "" if it would not.

    probability, flips: as in `export.parity.report.Tolerance`.
    """
    counts = answers(probabilities, labels)
    label = max(counts, key=lambda name: counts[name])
    changed = len(probabilities) - counts[label]
    passes = upper_bound(changed, len(probabilities)) <= flips if flips else not changed
    if passes and _spread(probabilities) / 2 <= probability:
        return (
            f"the tolerances are too large: an artifact that predicts {label} for every image would pass, with "
            f"{changed} of {len(probabilities)} predictions changed. Give smaller ones: --flip-tolerance, --tolerance."
        )
    return ""


def remarks(probabilities: np.ndarray, labels: Sequence[str]) -> list[str]:
    """Limits of a comparison with this reference, one sentence each."""
    total, counts = len(probabilities), answers(probabilities, labels)
    limits = []
    if missing := not_tested(counts):
        limits.append(
            f"not tested: {', '.join(missing)}. The reference predicts no such class on the {total} comparison images"
        )
    if (ties := int(near_ties(probabilities).sum())) > total / 2:
        limits.append(
            f"{ties} of {total} predictions of the reference are near-ties (two highest probabilities within "
            f"{NEAR_TIE:g}): small errors change them, so the result says little about confident predictions"
        )
    if (full := int(saturated(probabilities).sum())) > total / 2:
        limits.append(
            f"{full} of {total} predictions of the reference have a probability of 1 (within {SATURATED:g}): their "
            "probabilities reveal no errors, only changed predictions do"
        )
    return limits


def _spread(probabilities: np.ndarray) -> float:
    """Largest difference of a class's probability between any two images."""
    return float((probabilities.max(0) - probabilities.min(0)).max())
