"""Does an artifact decide as its reference does? Measured from pixels, through the backend that will serve it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from runtime.backends import Backend
from runtime.predictor import probabilities

TOLERANCE = {"fp32": 1e-4}
"""Largest difference of a probability that each precision may show."""


@dataclass(frozen=True)
class Parity:
    """How one artifact in one backend compares with the eager float32 reference."""

    images: int
    source: str
    """Where the images came from."""
    max_logit_difference: float
    max_probability_difference: float
    """This is also the smallest tolerance that would have passed, if no decision flipped."""
    mean_probability_difference: float
    flipped: int
    """Images on which the most probable class differs."""
    flipped_by_class: dict[str, int]
    """By the reference's decision."""
    tolerance: float
    """On `max_probability_difference`."""

    @property
    def holds(self) -> bool:
        """No decision flipped, and no probability moved by more than the tolerance."""
        # Written so that NaN, which compares false with everything, fails.
        return self.flipped == 0 and self.max_probability_difference <= self.tolerance

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"flips {self.flipped} of {self.images} decisions, moves a probability by up to "
            f"{self.max_probability_difference:.1e} (allowed 0 and {self.tolerance:.0e}; the smallest tolerance that "
            f"would have passed: {self.max_probability_difference:.1e})"
        )


def run_in_batches(backend: Backend, images: np.ndarray, batch_size: int = 8) -> np.ndarray:
    """(N, classes) float32 logits, in full batches, then a remainder, and the first image alone at batch 1.

    The mix makes a frozen batch axis or a batch-dependent artifact show itself.
    """
    parts = [backend.run(images[:1])]
    parts += [backend.run(images[start : start + batch_size]) for start in range(1, len(images), batch_size)]
    return np.concatenate(parts)


def compare(
    reference: np.ndarray,
    artifact: np.ndarray,
    labels: Sequence[str],
    *,
    precision: str,
    temperature: float,
    source: str,
) -> Parity:
    """Figures for (N, classes) float32 logits of both, over the same images."""
    expected, got = probabilities(reference, temperature), probabilities(artifact, temperature)
    differences = np.abs(expected - got)
    flips = expected.argmax(1) != got.argmax(1)
    return Parity(
        images=len(expected),
        source=source,
        max_logit_difference=float(np.abs(reference - artifact).max()),
        max_probability_difference=float(differences.max()),
        mean_probability_difference=float(differences.mean()),
        flipped=int(flips.sum()),
        flipped_by_class={label: int((flips & (expected.argmax(1) == i)).sum()) for i, label in enumerate(labels)},
        tolerance=TOLERANCE[precision],
    )
