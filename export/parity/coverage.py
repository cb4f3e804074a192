"""What the reference's own answers on the comparison images can show: where they show nothing, nothing is certified.

An artifact that ignores its input changes no prediction of a reference that always gives one answer. A comparison is
evidence only where such an artifact would fail it, and only for the classes that the reference answers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stageproof.export.statistics.binomial import least_images, upper_bound

LARGEST_SHARE = 0.95
"""A reference that gives one answer for a larger share of the images shows nothing about the other classes."""
LEAST_SPREAD = 1e-3
"""Where no probability differs by more between any two images, the reference does not respond to its input."""
LEAST_IMAGES = least_images(0.2)
"""14 different images: with fewer, not even one changed prediction in five is excluded at 95 % confidence."""
NEAR_TIE = 0.02
"""The reference's two highest probabilities lie closer than this: which of the two wins is arbitrary."""
SATURATED = 1e-6
"""The reference's highest probability lies closer to 1 than this: even a large error of its logits moves no
probability."""

_ADVICE = (
    "Compare on images of every class (--parity-data DIR_OR_PARQUET). If it answers alike there too, it has learned "
    "nothing: train again."
)


def answers(probabilities: np.ndarray, labels: Sequence[str]) -> dict[str, int]:
    """By class: the images for which the reference finds it the most probable.

    probabilities: (N, classes), rows sum to 1; rows that are not finite are left out.
    """
    finite = probabilities[np.isfinite(probabilities).all(1)]
    counts = np.bincount(finite.argmax(1), minlength=len(labels)) if len(finite) else np.zeros(len(labels), int)
    return {label: int(count) for label, count in zip(labels, counts, strict=True)}


def not_tested(counts: dict[str, int]) -> tuple[str, ...]:
    """The classes that the reference never answers: nothing is known of what an artifact does with them."""
    return tuple(label for label, count in counts.items() if not count)


def near_ties(probabilities: np.ndarray) -> np.ndarray:
    """(N,) bool: the two highest probabilities differ by less than `NEAR_TIE`."""
    two = np.sort(probabilities, axis=1)[:, -2:]
    ties: np.ndarray = two[:, 1] - two[:, 0] < NEAR_TIE
    return ties


def saturated(probabilities: np.ndarray) -> np.ndarray:
    """(N,) bool: the highest probability is 1 to within `SATURATED`."""
    full: np.ndarray = probabilities.max(1) > 1 - SATURATED
    return full


def why_nothing(probabilities: np.ndarray, labels: Sequence[str]) -> str:
    """Why comparing an artifact with this reference shows nothing; "" where it shows something.

    probabilities: (N, classes) of the reference, rows sum to 1.
    """
    total = len(probabilities)
    broken = int((~np.isfinite(probabilities).all(1)).sum())
    if broken:
        return f"the reference gives values that are not finite for {broken} of {total} images: it cannot be compared."
    counts = answers(probabilities, labels)
    label = max(counts, key=lambda name: counts[name])
    if counts[label] > LARGEST_SHARE * total:
        return (
            f"the reference answers {label} for {counts[label] / total:.1%} of {total} images: this shows nothing. An "
            f"artifact that always answers {label} would change {total - counts[label]} predictions. {_ADVICE}"
        )
    if (spread := _spread(probabilities)) < LEAST_SPREAD:
        return (
            f"no probability of the reference differs by more than {spread:.1e} between any two of {total} images, so "
            f"it does not respond to its input: this shows nothing. {_ADVICE}"
        )
    return ""


def why_too_loose(probabilities: np.ndarray, labels: Sequence[str], probability: float, flips: float) -> str:
    """Why the tolerances make the comparison show nothing: an artifact that ignores its input would pass; "" otherwise.

    probability, flips: as `export.parity.report.Tolerance` has them.
    """
    counts = answers(probabilities, labels)
    label = max(counts, key=lambda name: counts[name])
    changed = len(probabilities) - counts[label]
    passes = upper_bound(changed, len(probabilities)) <= flips if flips else not changed
    if passes and _spread(probabilities) / 2 <= probability:
        return (
            f"an artifact that answers {label} for every image would pass: {changed} changed predictions of "
            f"{len(probabilities)} are within the tolerances, so this shows nothing. Give smaller ones: "
            "--flip-tolerance, --tolerance."
        )
    return ""


def remarks(probabilities: np.ndarray, labels: Sequence[str]) -> list[str]:
    """What a comparison with this reference leaves open, one sentence each."""
    total, counts = len(probabilities), answers(probabilities, labels)
    said = []
    if missing := not_tested(counts):
        said.append(
            f"not tested: {', '.join(missing)}. The reference never gives this answer on the {total} images compared, "
            "so nothing is shown about it"
        )
    if (ties := int(near_ties(probabilities).sum())) > total / 2:
        said.append(
            f"{ties} of {total} predictions of the reference are near-ties (two highest probabilities within "
            f"{NEAR_TIE:g}): small errors change them, and a passed gate says little about firm predictions"
        )
    if (full := int(saturated(probabilities).sum())) > total / 2:
        said.append(
            f"{full} of {total} predictions of the reference have a probability of 1 (within {SATURATED:g}): comparing "
            "probabilities shows little there, only changed predictions count"
        )
    return said


def _spread(probabilities: np.ndarray) -> float:
    """Largest difference of a class's probability between two images."""
    return float((probabilities.max(0) - probabilities.min(0)).max())
