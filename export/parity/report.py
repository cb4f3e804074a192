"""Comparison of an artifact's logits with the reference's on the same images: metrics, tolerances and verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from stageproof.export.parity.accuracy import calibration_error, sensitivity
from stageproof.export.parity.changes import bounds_by_class, changed_answers
from stageproof.export.parity.coverage import (
    answers,
    near_ties,
    not_tested,
    saturated,
    why_too_loose,
    why_uninformative,
)
from stageproof.export.parity.served import Serve
from stageproof.export.statistics.binomial import level
from stageproof.export.statistics.clustered import Counts, bound, design_effect
from stageproof.runtime.softmax import probabilities

IMAGES = "images"
QUANTILES = (0.5, 0.9, 0.99, 0.999)


@dataclass(frozen=True)
class Tolerance:
    """Largest accepted differences of an artifact from the reference."""

    probability: float
    """Largest difference of any probability."""
    flips: float
    """Largest upper bound, clustered by patient (`export.statistics.clustered.bound`), on the share of changed answers;
    0: no answer of any image or study may change."""


TOLERANCES: dict[str, Tolerance] = {
    "fp32": Tolerance(1e-4, 0.0),
    "fp16": Tolerance(0.05, 0.01),
    "bf16": Tolerance(0.25, 0.02),
    "int8": Tolerance(0.6, 0.02),
    "fp8": Tolerance(0.6, 0.02),
}
"""By precision. The wide limits on single probabilities detect broken artifacts; the limits on changed predictions
detect coarse ones."""


def tolerance_for(precision: str, probability: float | None = None, flips: float | None = None) -> Tolerance:
    """The tolerance of the precision, with the user's values where given."""
    own = TOLERANCES[precision]
    return Tolerance(own.probability if probability is None else probability, own.flips if flips is None else flips)


@dataclass(frozen=True)
class Parity:
    """Comparison of one artifact in one backend with the float32 reference in PyTorch eager mode."""

    images: int
    source: str
    """Origin of the images."""
    max_logit_difference: float
    max_probability_difference: float
    """Also the smallest probability tolerance that would have passed."""
    mean_logit_difference: float
    mean_probability_difference: float
    logit_quantiles: dict[str, float]
    """Quantiles of the largest difference per image."""
    probability_quantiles: dict[str, float]
    flipped: int
    """Number of images with a changed predicted class."""
    flipped_by_class: dict[str, int]
    """`flipped` by the class that the reference predicts."""
    flip_bound: float
    """Upper bound on the share of changed predicted classes, clustered by patient
    (`export.statistics.clustered.bound`)."""
    flip_bound_by_class: dict[str, float | None]
    """`flip_bound` of each class that the reference predicts; None for a class with too few images or patients."""
    changed: int
    """Number of images whose predicted class changed, or their status or label in the runtime: what the gate counts.
    Equal to `flipped` if there are no abstentions."""
    changed_bound: float
    """As `flip_bound`, for `changed`."""
    statuses: dict[str, Any]
    """``reference``: number of the reference's answers by status. ``changes``: number of changed answers by
    transition."""
    studies: dict[str, Any] | None
    """As `statuses`, for the study that each patient's images form, with the number of changed studies and bounds on
    their share; None if patients are unknown."""
    people: int | None
    """Number of patients with at least one image; None if unknown."""
    unit: str
    """What `people` counts: ``patients``; ``groups`` of one or more patients; ``unknown``: every 32 images are assumed
    to be of one patient and to change together (`export.statistics.clustered`); ``images``: assumed independent."""
    design_effect: float | None
    """Of `changed`, from its variance between patients; None if it cannot be estimated."""
    confidence: float
    """Confidence level of each bound, in (0, 1): 95 % over all artifacts together (Bonferroni)."""
    artifacts: int
    """Number of artifacts in the Bonferroni correction."""
    near_ties: int
    """Number of images whose two highest reference probabilities differ by less than `NEAR_TIE`."""
    flipped_near_ties: int
    """Number of near-ties among `flipped`. The gate counts them like any other."""
    flipped_images: tuple[str, ...]
    """Names of the first 50 images with a changed predicted class."""
    batch_difference: float
    """Largest difference of a probability between batches of 1, 8 and 32 images and a padded batch."""
    calibration_error: dict[str, float] | None
    """Expected calibration error of reference and artifact; None without labels."""
    sensitivity: dict[str, dict[str, float]] | None
    """Sensitivity by class, of reference and artifact; None without labels."""
    tolerance: float
    """Limit of `max_probability_difference` and `batch_difference`."""
    flip_tolerance: float
    """Limit of `flip_bound` and `changed_bound`; if 0, no changed image and no changed study is accepted."""
    answers: dict[str, int]
    """Class → number of images for which the reference predicts it."""
    not_tested: tuple[str, ...]
    """Classes that the reference never predicts: the comparison does not apply to them."""
    saturated: int
    """Number of images for which the reference's highest probability is 1 (`export.parity.coverage.SATURATED`)."""
    shows_nothing: str
    """Why the comparison could not have revealed a broken artifact; "" if it could."""

    @property
    def holds(self) -> bool:
        """Whether the gate is passed: changed answers, probabilities and batch differences are within tolerance, and
        the comparison could have revealed a broken artifact."""
        if self.shows_nothing or self.too_many_studies:
            return False
        # Comparisons with NaN are false, so these are written such that NaN fails.
        most = max(self.flip_bound, self.changed_bound)
        answers = most <= self.flip_tolerance if self.flip_tolerance else self.changed == 0
        return answers and self.max_probability_difference <= self.tolerance and self.batch_difference <= self.tolerance

    @property
    def too_many_studies(self) -> bool:
        """Whether the lower bound on the share of changed studies exceeds the tolerance.

        The upper bound is reported but not tested: with 32 studies it is 9 % even if none changes.
        """
        if self.studies is None:
            return False
        return float(self.studies["lower_bound"]) > self.flip_tolerance

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        lists = {"flipped_images": list(self.flipped_images), "not_tested": list(self.not_tested)}
        return {**asdict(self), **lists, "holds": self.holds}

    def __str__(self) -> str:
        if self.shows_nothing:
            return f"cannot be compared: {self.shows_nothing.removesuffix('.')}"
        allowed = f"allowed {self.flip_tolerance:.1%}" if self.flip_tolerance else "allowed 0"
        population = f" of {self.people} {self.unit}" if self.people is not None else ""
        more = f", and {self.changed} answers, abstentions included" if self.changed != self.flipped else ""
        bound = max(self.flip_bound, self.changed_bound)
        studies = batches = ""
        if self.studies and self.studies["changed"]:
            studies = f", changes {self.studies['changed']} of {self.studies['studies']} studies"
        if not self.batch_difference <= self.tolerance:
            batches = f", and by {self.batch_difference:.1e} between batch sizes"
        return (
            f"changes {self.flipped} of {self.images} predictions{population}{more} (upper {self.confidence:.3g} bound "
            f"{bound:.1%}, {allowed}){studies}, and changes a probability by up to "
            f"{self.max_probability_difference:.1e} (allowed {self.tolerance:.0e}){batches}"
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
    people: np.ndarray | None = None,
    unit: str = IMAGES,
    serve: Serve | None = None,
    artifacts: int = 1,
) -> Parity:
    """The comparison of (N, classes) float32 logits of reference and artifact, on the same images.

    names: (N,) names of the images.
    truth: (N,) int, true class of each image as an index into `labels`; None if unknown.
    batches: each (M, classes), the artifact's logits of the first M images, run with other batch sizes.
    people: (N,) int, patient of each image; None for independent images or, with unit ``unknown``, unknown patients.
    unit: what `people` counts, as in `Parity.unit`.
    serve: converts logits to the runtime's answers, to compare abstentions and studies too.
    artifacts: number of artifacts of this bundle that are judged by a bound.
    """
    expected, got = probabilities(reference, temperature), probabilities(artifact, temperature)
    flips = (expected.argmax(1) != got.argmax(1)) | ~np.isfinite(got).all(1)
    ties, counts = near_ties(expected), answers(expected, labels)
    nothing = why_uninformative(expected, labels) or why_too_loose(
        expected, labels, tolerance.probability, tolerance.flips
    )
    confidence = level(artifacts)
    predicted = expected.argmax(1)
    changed, statuses, studies = changed_answers(reference, artifact, flips, serve, confidence)
    known = people is not None
    if unit == IMAGES:
        people = np.arange(len(expected))
    flipped_counts, changed_counts = Counts.of(flips, people), Counts.of(changed, people)
    flip_bound = bound(flipped_counts, confidence)
    moved = [np.abs(probabilities(other, temperature) - got[: len(other)]).max() for other in batches]
    return Parity(
        images=len(expected),
        source=source,
        **_differences("logit", np.abs(reference - artifact)),
        **_differences("probability", np.abs(expected - got)),
        flipped=int(flips.sum()),
        flipped_by_class={label: int((flips & (predicted == i)).sum()) for i, label in enumerate(labels)},
        flip_bound=flip_bound,
        flip_bound_by_class=bounds_by_class(flips, predicted, labels, people, confidence),
        changed=int(changed.sum()),
        changed_bound=bound(changed_counts, confidence) if (changed != flips).any() else flip_bound,
        statuses=statuses,
        studies=studies,
        people=flipped_counts.people if known else None,
        unit=unit,
        design_effect=design_effect(changed_counts),
        confidence=confidence,
        artifacts=artifacts,
        near_ties=int(ties.sum()),
        flipped_near_ties=int((flips & ties).sum()),
        flipped_images=tuple(names[i] for i in np.flatnonzero(flips)[:50]) if names else (),
        batch_difference=float(np.max(moved)) if moved else 0.0,
        **_against_truth({"reference": expected, "artifact": got}, truth, labels),
        tolerance=tolerance.probability,
        flip_tolerance=tolerance.flips,
        answers=counts,
        not_tested=not_tested(counts),
        saturated=int(saturated(expected).sum()),
        shows_nothing=nothing,
    )


def _against_truth(pair: dict[str, np.ndarray], truth: np.ndarray | None, labels: Sequence[str]) -> dict[str, Any]:
    """Calibration error and sensitivity of each of `pair`, (N, classes) probabilities. truth: (N,) int, or None."""
    if truth is None:
        return {"calibration_error": None, "sensitivity": None}
    return {
        "calibration_error": {name: calibration_error(one, truth) for name, one in pair.items()},
        "sensitivity": {name: sensitivity(one, truth, labels) for name, one in pair.items()},
    }


def _differences(name: str, values: np.ndarray) -> dict[str, Any]:
    """Maximum, mean, and quantiles of the per-image maximum. values: (N, classes), 0 or more."""
    by_image = values.max(1)
    return {
        f"max_{name}_difference": float(by_image.max()),
        f"mean_{name}_difference": float(values.mean()),
        f"{name}_quantiles": {str(q): float(np.quantile(by_image, q)) for q in QUANTILES},
    }
