"""Does an artifact decide as its reference does? Figures over the same images, and a verdict on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from export.coverage import answers, near_ties, not_tested, saturated, why_nothing, why_too_loose
from export.statistics import calibration_error, sensitivity, upper_bound
from runtime.calibration import probabilities

QUANTILES = (0.5, 0.9, 0.99, 0.999)


@dataclass(frozen=True)
class Tolerance:
    """What an artifact may do differently."""

    probability: float
    """Largest difference of any probability."""
    flips: float
    """Largest upper 95 % bound (Clopper–Pearson) on the share of changed decisions; 0: not one may change."""


TOLERANCES: dict[str, Tolerance] = {
    "fp32": Tolerance(1e-4, 0.0),
    "fp16": Tolerance(0.05, 0.01),
    "bf16": Tolerance(0.25, 0.02),
    "int8": Tolerance(0.6, 0.02),
    "fp8": Tolerance(0.6, 0.02),
}
"""By precision. The wide limits on single probabilities catch what is broken; what is merely coarse shows as flips."""


def tolerance_for(precision: str, probability: float | None = None, flips: float | None = None) -> Tolerance:
    """The precision's own tolerance, with the user's values in place of it where they are given."""
    own = TOLERANCES[precision]
    return Tolerance(own.probability if probability is None else probability, own.flips if flips is None else flips)


@dataclass(frozen=True)
class Parity:
    """How one artifact in one backend compares with the eager float32 reference."""

    images: int
    source: str
    """Where the images came from."""
    max_logit_difference: float
    max_probability_difference: float
    """This is also the smallest tolerance that would have passed, if the flips are within theirs."""
    mean_logit_difference: float
    mean_probability_difference: float
    logit_quantiles: dict[str, float]
    """Of the largest difference of each image."""
    probability_quantiles: dict[str, float]
    flipped: int
    """Images on which the most probable class differs."""
    flipped_by_class: dict[str, int]
    """By the reference's decision."""
    flip_bound: float
    """Upper 95 % bound (Clopper–Pearson) on the share of all such images that would flip."""
    near_ties: int
    """Images whose two highest reference probabilities lie within `NEAR_TIE`."""
    flipped_near_ties: int
    """Of `flipped`: those among the near-ties. They count like the others."""
    flipped_images: tuple[str, ...]
    """Names of the first 50 that flipped."""
    batch_difference: float
    """Largest difference of a probability when the same image runs at batch 1, 8, 32 and in a padded batch."""
    calibration_error: dict[str, float] | None
    """Expected calibration error of reference and artifact, where labels are known."""
    sensitivity: dict[str, dict[str, float]] | None
    """By class, of reference and artifact, where labels are known."""
    tolerance: float
    """On `max_probability_difference` and `batch_difference`."""
    flip_tolerance: float
    """On `flip_bound`; 0: on `flipped` itself."""
    answers: dict[str, int]
    """By class: images for which the reference finds it the most probable."""
    not_tested: tuple[str, ...]
    """Classes that the reference never answers: of them the comparison shows nothing."""
    saturated: int
    """Images for which the reference's highest probability is 1 (`export.coverage.SATURATED`)."""
    shows_nothing: str
    """Why the comparison is no evidence, whatever it found; "" where it is some."""

    @property
    def holds(self) -> bool:
        """Whether flips, probabilities and batches are all within their tolerance, and that is evidence of anything."""
        if self.shows_nothing:
            return False
        # Written so that NaN, which compares false with everything, fails.
        flips = self.flip_bound <= self.flip_tolerance if self.flip_tolerance else self.flipped == 0
        return flips and self.max_probability_difference <= self.tolerance and self.batch_difference <= self.tolerance

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        lists = {"flipped_images": list(self.flipped_images), "not_tested": list(self.not_tested)}
        return {**asdict(self), **lists, "holds": self.holds}

    def __str__(self) -> str:
        if self.shows_nothing:
            return f"cannot be certified: {self.shows_nothing.removesuffix('.')}"
        allowed = f"a bound of {self.flip_tolerance:.1%}" if self.flip_tolerance else "0"
        batches = ""
        if not self.batch_difference <= self.tolerance:
            batches = f", and moves one by {self.batch_difference:.1e} when only the batch size changes"
        return (
            f"flips {self.flipped} of {self.images} decisions (upper bound {self.flip_bound:.1%}, allowed {allowed}), "
            f"moves a probability by up to {self.max_probability_difference:.1e} (allowed {self.tolerance:.0e}; the "
            f"smallest tolerance that would have passed: {self.max_probability_difference:.1e}){batches}"
        )


def compare(
    reference: np.ndarray,
    artifact: np.ndarray,
    labels: Sequence[str],
    *,
    tolerance: Tolerance,
    temperature: float = 1.0,
    source: str = "",
    names: Sequence[str] = (),
    truth: np.ndarray | None = None,
    batches: Sequence[np.ndarray] = (),
) -> Parity:
    """Figures for (N, classes) float32 logits of both, over the same images.

    names: (N,) of the images.
    truth: (N,) int, the true class of each in the order of `labels`, where it is known.
    batches: (M, classes) logits of the first M images each, run in other batches than `artifact` was.
    """
    expected, got = probabilities(reference, temperature), probabilities(artifact, temperature)
    by_image = np.abs(expected - got).max(1)
    logits_by_image = np.abs(reference - artifact).max(1)
    flips = (expected.argmax(1) != got.argmax(1)) | ~np.isfinite(got).all(1)
    ties, counts = near_ties(expected), answers(expected, labels)
    nothing = why_nothing(expected, labels) or why_too_loose(expected, labels, tolerance.probability, tolerance.flips)
    moved = [np.abs(probabilities(other, temperature) - got[: len(other)]).max() for other in batches]
    pair = {"reference": expected, "artifact": got}
    return Parity(
        images=len(expected),
        source=source,
        max_logit_difference=float(logits_by_image.max()),
        max_probability_difference=float(by_image.max()),
        mean_logit_difference=float(np.abs(reference - artifact).mean()),
        mean_probability_difference=float(np.abs(expected - got).mean()),
        logit_quantiles=_quantiles(logits_by_image),
        probability_quantiles=_quantiles(by_image),
        flipped=int(flips.sum()),
        flipped_by_class={label: int((flips & (expected.argmax(1) == i)).sum()) for i, label in enumerate(labels)},
        flip_bound=upper_bound(int(flips.sum()), len(flips)),
        near_ties=int(ties.sum()),
        flipped_near_ties=int((flips & ties).sum()),
        flipped_images=tuple(names[i] for i in np.flatnonzero(flips)[:50]) if names else (),
        batch_difference=float(np.max(moved)) if moved else 0.0,
        calibration_error=None if truth is None else {k: calibration_error(p, truth) for k, p in pair.items()},
        sensitivity=None if truth is None else {k: sensitivity(p, truth, labels) for k, p in pair.items()},
        tolerance=tolerance.probability,
        flip_tolerance=tolerance.flips,
        answers=counts,
        not_tested=not_tested(counts),
        saturated=int(saturated(expected).sum()),
        shows_nothing=nothing,
    )


def _quantiles(values: np.ndarray) -> dict[str, float]:
    return {str(q): float(np.quantile(values, q)) for q in QUANTILES}
