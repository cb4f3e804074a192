"""People whose true probabilities are known, for simulations of calibration and abstention."""

from __future__ import annotations

import numpy as np

from stageproof.runtime.softmax import probabilities

CLASSES, SLICES = 4, 32
PREVALENCE = np.array([0.45, 0.3, 0.17, 0.08])


def draw(
    rng: np.random.Generator, people: int, icc: float, strength: float = 1.5, slices: int = SLICES
) -> tuple[np.ndarray, np.ndarray]:
    """(people,) stages and (people, slices, classes) scores, normal about `strength` at the stage, with variance 1.

    icc: share of that variance that all slices of a person have in common.
    """
    stage = rng.choice(CLASSES, p=PREVALENCE, size=people)
    common = rng.normal(size=(people, 1, CLASSES)) * np.sqrt(icc)
    own = rng.normal(size=(people, slices, CLASSES)) * np.sqrt(1 - icc)
    return stage, strength * np.eye(CLASSES)[stage][:, None] + common + own


def posteriors(scores: np.ndarray, icc: float, strength: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    """Exact probabilities of each slice alone ((people × slices, classes)) and of each person ((people, classes))."""
    variance = icc + (1 - icc) / scores.shape[1]
    log_prior = np.log(PREVALENCE)
    alone = probabilities((scores * strength + log_prior).reshape(-1, CLASSES))
    return alone, probabilities(scores.mean(1) * strength / variance + log_prior)


def flat(scores: np.ndarray, stage: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits, labels and patients of all slices; the logits are half as large again as the scores."""
    people, slices, _ = scores.shape
    return (scores * 1.5).reshape(-1, CLASSES), np.repeat(stage, slices), np.repeat(np.arange(people), slices)
