"""Figures of a classifier, for any number of weightings of the patients at once: one weighting is the data itself, the
others leave one patient out each, so that both go through the same lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from stageproof.runtime.labels import LABELS

BINS = 15
CLASSES = len(LABELS)
_AT_ONCE = 4_000_000
"""Weights of slices held in memory at a time."""


@dataclass(frozen=True)
class Answers:
    """What was answered about N things (slices, or patients) of known class."""

    probabilities: np.ndarray
    """(N, classes) float64, rows sum to 1."""
    labels: np.ndarray
    """(N,) int64, positions in LABELS, which are in clinical order."""
    patients: np.ndarray
    """(N,) int64 from 0: whose each is."""

    @property
    def decisions(self) -> np.ndarray:
        """(N,) int64, the most probable class."""
        return self.probabilities.argmax(1)

    @property
    def confidence(self) -> np.ndarray:
        """(N,) float64, the probability of the most probable class."""
        return self.probabilities.max(1)

    def tally(self, values: np.ndarray) -> np.ndarray:
        """(patients, …) float64: sums of `values` ((N, …)) over the things of each patient."""
        total = np.zeros((int(self.patients.max()) + 1, *values.shape[1:]))
        np.add.at(total, self.patients, values)
        return total

    def by_patient(self) -> Answers:
        """One answer a patient: the mean of the probabilities over the slices, as `runtime.prediction.study` has it."""
        counts = self.tally(np.ones(len(self.labels)))
        truth = stages(self.labels, self.patients)
        return Answers(self.tally(self.probabilities) / counts[:, None], truth, np.arange(len(counts)))


def stages(labels: np.ndarray, patients: np.ndarray) -> np.ndarray:
    """(patients,) int64: the label that most slices of each patient have, the healthier of two that are even.

    labels, patients: (N,) int64; patients count from 0, each with at least one slice.
    """
    table = np.zeros((int(patients.max()) + 1, CLASSES), np.int64)
    np.add.at(table, (patients, labels), 1)
    found: np.ndarray = table.argmax(1)
    return found


def class_counts(labels: np.ndarray) -> dict[str, int]:
    """Class → how many of `labels` ((N,) int) are of it."""
    counts = np.bincount(labels, minlength=len(LABELS)).tolist()
    return dict(zip(LABELS, counts, strict=True))


def confusion(answers: Answers, weights: np.ndarray) -> np.ndarray:
    """(B, classes, classes) float64: rows are the truth, columns the decision. weights: (B, patients) float64."""
    pairs = np.eye(CLASSES * CLASSES)[answers.labels * CLASSES + answers.decisions]
    found: np.ndarray = weights @ answers.tally(pairs)
    return found.reshape(-1, CLASSES, CLASSES)


def decision_scores(answers: Answers, weights: np.ndarray, counted: Sequence[int]) -> dict[str, np.ndarray]:
    """Name → (B,) float64: everything that follows from the confusion matrix; NaN where it is not defined.

    weights: (B, patients) float64.
    counted: the classes whose figures the macro figures are the mean of.
    """
    return table_scores(confusion(answers, weights), counted)


def table_scores(table: np.ndarray, counted: Sequence[int]) -> dict[str, np.ndarray]:
    """The figures of `decision_scores`, of confusion matrices. table: (B, classes, classes) float64 as `confusion` has.

    Precision of a class that was never answered is not defined, nor is kappa of slices of one class. Kappa: Cohen
    1968, weighted by the square of the distance in clinical order.
    """
    total = table.sum((1, 2))
    right = np.diagonal(table, axis1=1, axis2=2)
    is_class, answered = table.sum(2), table.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        by_class = {
            "precision": right / answered,
            "recall": right / is_class,
            "specificity": 1 - (answered - right) / (total[:, None] - is_class),
            "f1": 2 * right / (answered + is_class),
        }
        distance = np.subtract.outer(np.arange(CLASSES), np.arange(CLASSES)) ** 2
        by_chance = is_class[:, :, None] * answered[:, None, :] / total[:, None, None]
        scores = {
            "accuracy": right.sum(1) / total,
            # Of slices of a single class every classifier has the agreement of chance.
            "kappa": np.where(
                (is_class > 0).sum(1) > 1,
                1 - (distance * table).sum((1, 2)) / (distance * by_chance).sum((1, 2)),
                np.nan,
            ),
            "demented.accuracy": (table[:, 0, 0] + table[:, 1:, 1:].sum((1, 2))) / total,
            "demented.sensitivity": table[:, 1:, 1:].sum((1, 2)) / table[:, 1:].sum((1, 2)),
            "demented.specificity": table[:, 0, 0] / table[:, 0].sum(1),
        }
    scores["balanced_accuracy"] = _macro(by_class["recall"].T, counted)
    for name, values in by_class.items():
        if name != "recall":
            scores[f"macro_{name}"] = _macro(values.T, counted)
        scores |= {f"classes.{LABELS[label]}.{name}": values[:, label] for label in range(CLASSES)}
    return scores


def ranking_scores(answers: Answers, weights: np.ndarray, counted: Sequence[int]) -> dict[str, np.ndarray]:
    """Name → (B,) float64: areas under ROC curves, one class against the rest, and demented or not.

    weights, counted: as for `decision_scores`.
    """
    scores = {
        f"classes.{LABELS[label]}.auc": area(answers.probabilities[:, label], answers.labels == label, answers, weights)
        for label in range(CLASSES)
    }
    scores["macro_auc"] = _macro(np.array([scores[f"classes.{label}.auc"] for label in LABELS]), counted)
    scores["demented.auc"] = area(1 - answers.probabilities[:, 0], answers.labels > 0, answers, weights)
    return scores


def _macro(values: np.ndarray, counted: Sequence[int]) -> np.ndarray:
    """(B,) float64: mean over the classes that count, NaN where none does. values: (classes, B) float64."""
    return values[list(counted)].mean(0) if len(counted) else np.full(values.shape[1], np.nan)


def area(score: np.ndarray, positive: np.ndarray, answers: Answers, weights: np.ndarray) -> np.ndarray:
    """(B,) float64: chance that a positive scores above a negative, ties halved; NaN without either.

    score: (N,) float64. positive: (N,) bool. weights: (B, patients) float64.
    """
    order = np.argsort(score, kind="stable")
    first_of_tie = np.flatnonzero(np.diff(score[order], prepend=-np.inf) > 0)
    positive = positive[order]
    found = []
    for part in _parts(answers, weights, order):
        above = np.add.reduceat(part * positive, first_of_tie, axis=1)
        same = np.add.reduceat(part * ~positive, first_of_tie, axis=1)
        below = np.cumsum(same, axis=1) - same
        with np.errstate(invalid="ignore"):
            found.append((above * (below + same / 2)).sum(1) / (above.sum(1) * same.sum(1)))
    return np.concatenate(found)


def calibration_scores(answers: Answers, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Name → (B,) float64: how far probabilities are from frequencies. weights: (B, patients) float64.

    ece: expected calibration error of the decision in 15 equal bins (Guo et al. 2017, eq. 3).
    brier: squared error summed over the classes (Brier 1950), in [0, 2].
    nll: negative log-likelihood of the truth, nats.
    """
    chances, rows = answers.probabilities, np.arange(len(answers.labels))
    count = weights @ answers.tally(np.ones(len(rows)))
    excess = (answers.decisions == answers.labels) - answers.confidence
    binned = np.zeros((len(rows), BINS))
    binned[rows, bin_of(answers.confidence)] = excess
    found = {"ece": np.abs(weights @ answers.tally(binned)).sum(1) / count}
    for name, loss in losses(chances, answers.labels).items():
        found[name] = weights @ answers.tally(loss) / count
    return found


def losses(chances: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Name → (N,) float64 of each thing: Brier score, and negative log-likelihood in nats. chances: (N, classes)."""
    said = np.maximum(chances[np.arange(len(labels)), labels], np.finfo(float).tiny)
    return {"brier": ((chances - np.eye(CLASSES)[labels]) ** 2).sum(1), "nll": -np.log(said)}


def bin_of(confidence: np.ndarray) -> np.ndarray:
    """(N,) int64: which of the equal bins (m/15, (m + 1)/15] each confidence falls into."""
    bins: np.ndarray = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    return bins


def risk_at(answers: Answers, weights: np.ndarray, coverages: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(B, len(coverages)) share of wrong answers among the surest that make up each coverage, and (B,) its mean over
    all coverages (area under the risk-coverage curve, Geifman and El-Yaniv 2017).

    weights: (B, patients) float64. coverages: shares in (0, 1].
    """
    order = np.argsort(-answers.confidence, kind="stable")
    wrong = (answers.decisions != answers.labels)[order]
    risks, areas = [], []
    for part in _parts(answers, weights, order):
        answered = np.cumsum(part, axis=1)
        risk = np.cumsum(part * wrong, axis=1) / np.maximum(answered, 1e-9)
        total = answered[:, -1:]
        reached = [(answered < share * total - 1e-9).sum(1) for share in coverages]
        risks.append(np.take_along_axis(risk, np.stack(reached, 1), 1))
        areas.append((risk * part).sum(1) / total[:, 0])
    return np.concatenate(risks), np.concatenate(areas)


def _parts(answers: Answers, weights: np.ndarray, order: np.ndarray) -> Iterator[np.ndarray]:
    """(b, N) weights of the things in `order`, some of the weightings at a time."""
    step = max(1, _AT_ONCE // len(order))
    for start in range(0, len(weights), step):
        yield weights[start : start + step, answers.patients[order]]
