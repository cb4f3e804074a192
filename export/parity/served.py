"""What a user of the runtime gets from an artifact's logits: status and label of each image, and of each study.

The runtime's own code makes them (`runtime.inference.answers`, `runtime.prediction.study_by`), so that a change of its
rules is a change of what the gate compares.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from stageproof.runtime.inference.answers import PredictionBuilder
from stageproof.runtime.inference.input_batches import Prepared
from stageproof.runtime.model_info import ModelInfo
from stageproof.runtime.prediction import Prediction, StudyPrediction, study_by
from stageproof.runtime.softmax import probabilities

Answer = tuple[str, str | None]
"""Status (``ok``, ``abstained``, ``rejected``) and label, which is None unless the status is ``ok``."""
Serve = Callable[[np.ndarray], "Served"]
"""From (N, classes) logits to what the user gets."""


@dataclass(frozen=True)
class Served:
    """The answers to N images, and to the studies that they make."""

    images: tuple[Answer, ...]
    studies: tuple[Answer, ...]
    """In the order of the people's numbers; none where nobody knows the people."""


def serve(model: ModelInfo, logits: np.ndarray, people: np.ndarray | None, rejected: np.ndarray | None) -> Served:
    """The answers of `model` to images with these logits.

    logits: (N, classes) float32; what is not finite is answered as no runtime would, with a label of its own.
    people: (N,) int, equal for images of one person; None where nobody knows.
    rejected: (N,) bool, images that the guard rejects, whatever the artifact says; None without a guard.
    """
    answers = PredictionBuilder(model, "", "", model.abstain_below, guarded=rejected is not None)
    out = np.zeros(len(logits), bool) if rejected is None else rejected
    rows = probabilities(logits, model.temperature).tolist()
    slices = [
        answers.prediction(Prepared(code="guard"), None) if skip else answers.prediction(Prepared(), row)
        for row, skip in zip(rows, out, strict=True)
    ]
    finite = np.isfinite(logits).all(1)
    images = tuple(
        (one.status, one.label) if fine else ("failed", None) for one, fine in zip(slices, finite, strict=True)
    )
    if people is None:
        return Served(images, ())
    order, index = np.unique(people, return_inverse=True)
    of_each: list[list[int]] = [[] for _ in order]
    for position, person in enumerate(index.tolist()):
        of_each[person].append(position)
    studies = [
        _study([slices[position] for position in positions], model) if finite[positions].all() else None
        for positions in of_each
    ]
    return Served(images, tuple(("failed", None) if one is None else (one.status, one.label) for one in studies))


def _study(slices: Sequence[Prediction], model: ModelInfo) -> StudyPrediction:
    """As `Predictor.predict_study` makes it: by the rule that the model carries."""
    return study_by(model, slices)


def differing(before: Sequence[Answer], after: Sequence[Answer]) -> np.ndarray:
    """(N,) bool: the status or the label differs."""
    return np.array([one != other for one, other in zip(before, after, strict=True)], bool)


def named(before: Sequence[Answer], after: Sequence[Answer]) -> dict[str, int]:
    """How often which answer became which, such as ``ok NonDemented → abstained``; the most frequent first."""
    pairs = [f"{_words(one)} → {_words(other)}" for one, other in zip(before, after, strict=True) if one != other]
    return dict(Counter(pairs).most_common())


def statuses(answers: Sequence[Answer]) -> dict[str, int]:
    """How many answers have which status."""
    return dict(Counter(status for status, _ in answers))


def _words(answer: Answer) -> str:
    status, label = answer
    return status if label is None else f"{status} {label}"
