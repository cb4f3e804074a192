"""Converts an artifact's logits to the runtime's answers: status and label of each image and of each study.

It calls the runtime's own code (`runtime.inference.answers`, `runtime.prediction.study_by`), so that the gate always
compares by the runtime's rules.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from stageproof.runtime.inference.answers import PredictionBuilder
from stageproof.runtime.inference.input_batches import Prepared
from stageproof.runtime.model_info import ModelInfo
from stageproof.runtime.prediction import study_by
from stageproof.runtime.softmax import probabilities

Answer = tuple[str, str | None]
"""Status (``ok``, ``abstained``, ``rejected``) and label, which is None unless the status is ``ok``."""
Serve = Callable[[np.ndarray], "Served"]
"""Converts (N, classes) logits to answers."""


@dataclass(frozen=True)
class Served:
    """The answers for N images, and for the studies that they form."""

    images: tuple[Answer, ...]
    studies: tuple[Answer, ...]
    """Sorted by patient number; empty if patients are unknown."""


def serve(model: ModelInfo, logits: np.ndarray, people: np.ndarray | None, rejected: np.ndarray | None) -> Served:
    """The answers of `model` for images with these logits.

    logits: (N, classes) float32; rows that are not finite get the status ``failed``, which no runtime answer has.
    people: (N,) int, patient of each image; None if unknown.
    rejected: (N,) bool, images that the guard rejects, whatever the logits; None without a guard.
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
    for position, patient in enumerate(index.tolist()):
        of_each[patient].append(position)
    studies = [
        study_by(model, [slices[position] for position in positions]) if finite[positions].all() else None
        for positions in of_each
    ]
    return Served(images, tuple(("failed", None) if one is None else (one.status, one.label) for one in studies))


def differing(before: Sequence[Answer], after: Sequence[Answer]) -> np.ndarray:
    """(N,) bool: status or label differ."""
    return np.array([one != other for one, other in zip(before, after, strict=True)], bool)


def named(before: Sequence[Answer], after: Sequence[Answer]) -> dict[str, int]:
    """Transition → count, such as ``ok NonDemented → abstained``; most frequent first."""
    pairs = [f"{_words(one)} → {_words(other)}" for one, other in zip(before, after, strict=True) if one != other]
    return dict(Counter(pairs).most_common())


def statuses(answers: Sequence[Answer]) -> dict[str, int]:
    """Status → number of answers."""
    return dict(Counter(status for status, _ in answers))


def _words(answer: Answer) -> str:
    status, label = answer
    return status if label is None else f"{status} {label}"
