"""Does an artifact decide as its reference does? Figures over the same images, and a verdict on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from stageproof.export.parity.accuracy import calibration_error, sensitivity
from stageproof.export.parity.changes import bounds_by_class, seen
from stageproof.export.parity.coverage import answers, near_ties, not_tested, saturated, why_nothing, why_too_loose
from stageproof.export.parity.served import Serve
from stageproof.export.statistics.binomial import level
from stageproof.export.statistics.clustered import Counts, bound, design_effect
from stageproof.runtime.softmax import probabilities

IMAGES = "images"
QUANTILES = (0.5, 0.9, 0.99, 0.999)


@dataclass(frozen=True)
class Tolerance:
    """What an artifact may do differently."""

    probability: float
    """Largest difference of any probability."""
    flips: float
    """Largest upper bound over people (`export.statistics.clustered.bound`) on the share of changed answers; 0: not one
    may change, of images or of studies."""


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
    """This is also the smallest tolerance that would have passed, if the changed answers are within theirs."""
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
    """Upper bound over people (`export.statistics.clustered.bound`) on the share of all such images that would flip."""
    flip_bound_by_class: dict[str, float | None]
    """The same of each class that the reference answers; None where there are too few images or people."""
    changed: int
    """Images whose most probable class differs, or whose status or label as the runtime gives it: what the gate
    counts. Equal to `flipped` where nothing abstains."""
    changed_bound: float
    """As `flip_bound`, of these."""
    statuses: dict[str, Any]
    """``reference``: how many of its answers have which status. ``changes``: how often which answer became which."""
    studies: dict[str, Any] | None
    """The same of the studies that the images of each person make, with how many changed and bounds on their share;
    None where nobody knows the people."""
    people: int | None
    """With at least one image; None where nobody knows."""
    unit: str
    """What is counted as people: ``patients``; ``groups`` of one or more people; ``unknown``: as if every 32 images
    were of one person, and changed together (`export.statistics.clustered`); ``images``, each by itself."""
    design_effect: float | None
    """Of `changed`, from its spread over people; None where that cannot be estimated."""
    confidence: float
    """Of each bound, in (0, 1): 95 % over all artifacts together (Bonferroni)."""
    artifacts: int
    """So many artifacts share the 5 %."""
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
    """On `flip_bound` and `changed_bound`; 0: on `changed` itself, and on changed studies."""
    answers: dict[str, int]
    """By class: images for which the reference finds it the most probable."""
    not_tested: tuple[str, ...]
    """Classes that the reference never answers: of them the comparison shows nothing."""
    saturated: int
    """Images for which the reference's highest probability is 1 (`export.parity.coverage.SATURATED`)."""
    shows_nothing: str
    """Why the comparison is no evidence, whatever it found; "" where it is some."""

    @property
    def holds(self) -> bool:
        """Whether changed answers, probabilities and batches are all within their tolerance, and that is evidence of
        anything."""
        if self.shows_nothing or self.too_many_studies:
            return False
        # Written so that NaN, which compares false with everything, fails.
        most = max(self.flip_bound, self.changed_bound)
        answers = most <= self.flip_tolerance if self.flip_tolerance else self.changed == 0
        return answers and self.max_probability_difference <= self.tolerance and self.batch_difference <= self.tolerance

    @property
    def too_many_studies(self) -> bool:
        """Whether more studies change than the tolerance allows, beyond doubt: its lower bound is above.

        The upper bound is reported only: even no changed study among 32 leaves one of 9 %.
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
            return f"cannot be certified: {self.shows_nothing.removesuffix('.')}"
        allowed = f"allowed {self.flip_tolerance:.1%}" if self.flip_tolerance else "allowed 0"
        whose = f" of {self.people} {self.unit}" if self.people is not None else ""
        more = f", and {self.changed} answers with those that abstain" if self.changed != self.flipped else ""
        bound = max(self.flip_bound, self.changed_bound)
        studies = batches = ""
        if self.studies and self.studies["changed"]:
            studies = f", changes {self.studies['changed']} of {self.studies['studies']} studies"
        if not self.batch_difference <= self.tolerance:
            batches = f", and moves one by {self.batch_difference:.1e} when only the batch size changes"
        return (
            f"changes {self.flipped} of {self.images} predictions{whose}{more} (upper {self.confidence:.3g} bound "
            f"{bound:.1%}, {allowed}){studies}, moves a probability by up to {self.max_probability_difference:.1e} "
            f"(allowed {self.tolerance:.0e}; the smallest tolerance that would have passed: "
            f"{self.max_probability_difference:.1e}){batches}"
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
    """Figures for (N, classes) float32 logits of both, over the same images.

    names: (N,) of the images.
    truth: (N,) int, the true class of each in the order of `labels`, where it is known.
    batches: (M, classes) logits of the first M images each, run in other batches than `artifact` was.
    people: (N,) int, equal for images of one person; None where each image is by itself, or, with unit ``unknown``,
        where nobody knows. unit: what they are, as `Parity.unit`.
    serve: gives what the user of the runtime gets from logits, so that abstentions and studies are compared too.
    artifacts: how many artifacts are judged by a bound in this bundle.
    """
    expected, got = probabilities(reference, temperature), probabilities(artifact, temperature)
    flips = (expected.argmax(1) != got.argmax(1)) | ~np.isfinite(got).all(1)
    ties, counts = near_ties(expected), answers(expected, labels)
    nothing = why_nothing(expected, labels) or why_too_loose(expected, labels, tolerance.probability, tolerance.flips)
    confidence = level(artifacts)
    decided = expected.argmax(1)
    changed, statuses, studies = seen(reference, artifact, flips, serve, confidence)
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
        flipped_by_class={label: int((flips & (decided == i)).sum()) for i, label in enumerate(labels)},
        flip_bound=flip_bound,
        flip_bound_by_class=bounds_by_class(flips, decided, labels, people, confidence),
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
    """Calibration error and sensitivity of both. pair: (N, classes) probabilities. truth: (N,) int, or None."""
    if truth is None:
        return {"calibration_error": None, "sensitivity": None}
    return {
        "calibration_error": {name: calibration_error(one, truth) for name, one in pair.items()},
        "sensitivity": {name: sensitivity(one, truth, labels) for name, one in pair.items()},
    }


def _differences(name: str, values: np.ndarray) -> dict[str, Any]:
    """Greatest, mean, and quantiles of the largest of each image. values: (N, classes), 0 or more."""
    by_image = values.max(1)
    return {
        f"max_{name}_difference": float(by_image.max()),
        f"mean_{name}_difference": float(values.mean()),
        f"{name}_quantiles": {str(q): float(np.quantile(by_image, q)) for q in QUANTILES},
    }
