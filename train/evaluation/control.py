"""What is left when labels are shuffled among patients: whatever rises above chance then is memory of people."""

from __future__ import annotations

from typing import Any

import numpy as np

from train.data.patients import directions
from train.evaluation.heldout import HeldOut
from train.evaluation.scores import CLASSES, Answers, stages

SHUFFLES = 1000
_BLOCK = 1024


def permutation_test(answers: Answers, seed: int = 0) -> tuple[dict[str, Any], np.ndarray]:
    """How the same answers score when each patient is given another patient's label; and the score of each shuffle.

    The score is balanced accuracy of slices over the classes present, all slices of a patient taken for the class that
    most of them have. p is the chance of a score as high by luck (Phipson and Smyth 2010).
    """
    people = answers.by_patient()
    counts = answers.tally(np.eye(CLASSES)[answers.decisions])  # how often each class was answered, by patient
    rng = np.random.default_rng(seed)
    shuffled = np.array([_balanced(counts, rng.permutation(people.labels)) for _ in range(SHUFFLES)])
    score = _balanced(counts, people.labels)
    present = len(np.unique(people.labels))
    facts = {
        "score": score,
        "shuffles": SHUFFLES,
        "shuffled_mean": float(shuffled.mean()),
        "shuffled_95": float(np.quantile(shuffled, 0.95)),
        "chance": 1 / present,
        "p": float((1 + (shuffled >= score - 1e-12).sum()) / (SHUFFLES + 1)),
    }
    return facts, shuffled


def memory_test(data: HeldOut, seed: int = 0) -> dict[str, Any] | None:
    """What a learner that can only remember (nearest neighbour among the training slices) scores on shuffled labels.

    Labels are shuffled among all patients of both sides, so a neighbour's label is right by chance unless the neighbour
    is the same person. `memory` is the share of answers that the person explains, in [0, 1]; `holds` says that it is
    none, up to what the shuffles vary. None where the training slices are not at hand.
    """
    if data.training is None or data.training_patients is None or data.patients is None:
        return None
    nearest = _nearest(data.slices.thumbnails, data.training.thumbnails)
    mine, neighbours = data.patients, data.training_patients[nearest]
    labels = stages(
        np.concatenate([data.slices.labels, data.training.labels]),
        np.concatenate([data.patients, data.training_patients]),
    )
    rng = np.random.default_rng(seed)
    right = []
    for _ in range(SHUFFLES):
        given = rng.permutation(labels)
        right.append(float((given[mine] == given[neighbours]).mean()))
    counts, total = np.bincount(labels), len(labels)
    chance = float((counts * (counts - 1)).sum() / (total * (total - 1)))  # that two people share a label
    error = float(np.std(right) / np.sqrt(SHUFFLES))
    accuracy = float(np.mean(right))
    return {
        "accuracy": accuracy,
        "chance": chance,
        "standard_error": error,
        "shuffles": SHUFFLES,
        "memory": max(0.0, (accuracy - chance) / (1 - chance)),
        "holds": accuracy - chance <= 4 * error,
    }


def _balanced(counts: np.ndarray, labels: np.ndarray) -> float:
    """Balanced accuracy of answers counted by patient ((P, classes)), were the patients of these classes ((P,))."""
    table = np.zeros((CLASSES, CLASSES))
    np.add.at(table, labels, counts)
    present = table.sum(1) > 0
    return float((np.diagonal(table)[present] / table.sum(1)[present]).mean())


def _nearest(thumbnails: np.ndarray, training: np.ndarray) -> np.ndarray:
    """(N,) int64: which training thumbnail each is most alike."""
    mine, theirs = directions(thumbnails), directions(training)
    parts = [(mine[at : at + _BLOCK] @ theirs.T).argmax(1) for at in range(0, len(mine), _BLOCK)]
    return np.concatenate(parts).astype(np.int64)
