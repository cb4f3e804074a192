"""Metrics of a classifier, computed for several weightings of the patients at once.

The first weighting is the data itself; the others leave out one patient each, for the jackknife.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from stageproof.runtime.labels import LabelSet

BINS = 15
_AT_ONCE = 4_000_000
"""Maximum number of weights of slices in memory at a time."""


@dataclass(frozen=True)
class Answers:
    """Predictions for N items (slices or patients) of known class."""

    probabilities: np.ndarray
    """(N, classes) float64, rows sum to 1."""
    labels: np.ndarray
    """(N,) int64, indices in `classes.names`, which are in clinical order."""
    patients: np.ndarray
    """(N,) int64 from 0: the patient of each item."""
    classes: LabelSet
    """The label set; its length is the number of columns of `probabilities`."""

    @property
    def decisions(self) -> np.ndarray:
        """(N,) int64, the predicted (most probable) class."""
        return self.probabilities.argmax(1)

    @property
    def confidence(self) -> np.ndarray:
        """(N,) float64, the probability of the predicted class."""
        return self.probabilities.max(1)

    @property
    def positive(self) -> np.ndarray:
        """(N,) bool: whether the true class is positive."""
        return self.classes.is_positive[self.labels]

    @property
    def predicted_positive(self) -> np.ndarray:
        """(N,) bool: whether the predicted class is positive."""
        return self.classes.is_positive[self.decisions]

    @property
    def positive_probability(self) -> np.ndarray:
        """(N,) float64, the probability of all positive classes together.

        Summed over the smaller side, so that one class alone on a side has exactly its own probability.
        """
        positive = self.classes.is_positive
        if 2 * positive.sum() <= len(positive):
            return self.probabilities[:, positive].sum(1)
        return 1 - self.probabilities[:, ~positive].sum(1)

    def tally(self, values: np.ndarray) -> np.ndarray:
        """(patients, …) float64: sums of `values` ((N, …)) over the items of each patient."""
        total = np.zeros((int(self.patients.max()) + 1, *values.shape[1:]))
        np.add.at(total, self.patients, values)
        return total

    def by_patient(self) -> Answers:
        """One prediction for each patient: the mean of the probabilities over the slices."""
        counts = self.tally(np.ones(len(self.labels)))
        truth = stages(self.labels, self.patients)
        chances, numbers = self.tally(self.probabilities) / counts[:, None], np.arange(len(counts))
        return replace(self, probabilities=chances, labels=truth, patients=numbers)


def stages(labels: np.ndarray, patients: np.ndarray) -> np.ndarray:
    """(patients,) int64: the majority label of the slices of each patient; the less severe one if there is a tie.

    labels, patients: (N,) int64; patients count from 0, each with at least one slice.
    """
    table = np.zeros((int(patients.max()) + 1, int(labels.max()) + 1), np.int64)
    np.add.at(table, (patients, labels), 1)
    return table.argmax(1)


def class_counts(labels: np.ndarray, classes: LabelSet) -> dict[str, int]:
    """Class → its number in `labels` ((N,) int, indices in `classes.names`)."""
    counts = np.bincount(labels, minlength=len(classes)).tolist()
    return dict(zip(classes.names, counts, strict=True))


def confusion(answers: Answers, weights: np.ndarray) -> np.ndarray:
    """(B, classes, classes) float64 confusion matrices (rows true, columns predicted). weights: (B, patients)."""
    patients, count = weights.shape[1], len(answers.classes)
    pairs = np.zeros((patients, count, count))
    np.add.at(pairs, (answers.patients, answers.labels, answers.decisions), 1)
    found: np.ndarray = weights @ pairs.reshape(patients, -1)
    return found.reshape(-1, count, count)


def decision_scores(answers: Answers, weights: np.ndarray, counted: Sequence[int]) -> dict[str, np.ndarray]:
    """Name → (B,) float64: all metrics of the confusion matrix; NaN if undefined.

    weights: (B, patients) float64.
    counted: the classes that macro averages include.
    """
    return table_scores(confusion(answers, weights), answers.classes, counted)


def table_scores(table: np.ndarray, classes: LabelSet, counted: Sequence[int]) -> dict[str, np.ndarray]:
    """The metrics of `decision_scores` from confusion matrices. table: (B, classes, classes) float64, as `confusion`.

    Precision of a class that was never predicted is undefined, as is kappa of slices of a single class. Kappa is
    quadratically weighted by the distance in clinical order (Cohen 1968).
    """
    total = table.sum((1, 2))
    right = np.diagonal(table, axis1=1, axis2=2)
    is_class, answered = table.sum(2), table.sum(1)
    sides = np.stack([~classes.is_positive, classes.is_positive]).astype(float)
    (true_negative, false_positive), (false_negative, true_positive) = (sides @ table @ sides.T).transpose(1, 2, 0)
    places = np.arange(len(classes))
    with np.errstate(invalid="ignore", divide="ignore"):
        by_class = {
            "precision": right / answered,
            "recall": right / is_class,
            "specificity": 1 - (answered - right) / (total[:, None] - is_class),
            "f1": 2 * right / (answered + is_class),
        }
        distance = np.subtract.outer(places, places) ** 2
        by_chance = is_class[:, :, None] * answered[:, None, :] / total[:, None, None]
        scores = {
            "accuracy": right.sum(1) / total,
            # With a single class, every classifier has chance agreement.
            "kappa": np.where(
                (is_class > 0).sum(1) > 1,
                1 - (distance * table).sum((1, 2)) / (distance * by_chance).sum((1, 2)),
                np.nan,
            ),
            "positive.accuracy": (true_negative + true_positive) / total,
            "positive.sensitivity": true_positive / (true_positive + false_negative),
            "positive.specificity": true_negative / (true_negative + false_positive),
        }
    scores["balanced_accuracy"] = _macro(by_class["recall"].T, counted)
    for name, values in by_class.items():
        if name != "recall":
            scores[f"macro_{name}"] = _macro(values.T, counted)
        scores |= {f"classes.{label}.{name}": values[:, at] for at, label in enumerate(classes.names)}
    return scores


def ranking_scores(answers: Answers, weights: np.ndarray, counted: Sequence[int]) -> dict[str, np.ndarray]:
    """Name → (B,) float64: areas under the ROC curve, one class against the rest, and positive against negative.

    weights, counted: as for `decision_scores`.
    """
    chances, people = answers.probabilities, answers.patients
    areas = [area(chances[:, at], answers.labels == at, people, weights) for at in range(len(answers.classes))]
    return {
        **{f"classes.{label}.auc": found for label, found in zip(answers.classes.names, areas, strict=True)},
        "macro_auc": _macro(np.array(areas), counted),
        "positive.auc": area(answers.positive_probability, answers.positive, people, weights),
    }


def _macro(values: np.ndarray, counted: Sequence[int]) -> np.ndarray:
    """(B,) float64: mean over the classes `counted`, NaN if there are none. values: (classes, B) float64."""
    return values[list(counted)].mean(0) if len(counted) else np.full(values.shape[1], np.nan)


def area(score: np.ndarray, positive: np.ndarray, patients: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(B,) float64: area under the ROC curve, the probability that a positive scores above a negative, with ties
    counted half; NaN without positives or negatives.

    score: (N,) float64. positive: (N,) bool. patients: (N,) int64 from 0. weights: (B, patients) float64.
    """
    order = np.argsort(score, kind="stable")
    first_of_tie = np.flatnonzero(np.diff(score[order], prepend=-np.inf) > 0)
    positive = positive[order]
    found = []
    for part in _parts(patients, weights, order):
        above = np.add.reduceat(part * positive, first_of_tie, axis=1)
        same = np.add.reduceat(part * ~positive, first_of_tie, axis=1)
        below = np.cumsum(same, axis=1) - same
        with np.errstate(invalid="ignore"):
            found.append((above * (below + same / 2)).sum(1) / (above.sum(1) * same.sum(1)))
    return np.concatenate(found)


def calibration_scores(answers: Answers, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Name → (B,) float64: calibration metrics. weights: (B, patients) float64.

    ece: expected calibration error of the predicted class in 15 equal-width bins (Guo et al. 2017, eq. 3).
    brier: Brier score, squared error summed over the classes (Brier 1950), in [0, 2].
    nll: negative log-likelihood of the true class, nats.
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
    """Name → (N,) float64 for each item: Brier score, and negative log-likelihood in nats. chances: (N, classes)."""
    likelihood = np.maximum(chances[np.arange(len(labels)), labels], np.finfo(float).tiny)
    return {"brier": ((chances - np.eye(chances.shape[1])[labels]) ** 2).sum(1), "nll": -np.log(likelihood)}


def bin_of(confidence: np.ndarray) -> np.ndarray:
    """(N,) int64: index m of the bin (m/15, (m + 1)/15] of each confidence."""
    return np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)


def risk_at(answers: Answers, weights: np.ndarray, coverages: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(B, len(coverages)) error rate of the most confident predictions at each coverage, and (B,) the area under the
    risk-coverage curve (Geifman and El-Yaniv 2017).

    weights: (B, patients) float64. coverages: shares in (0, 1].
    """
    order = np.argsort(-answers.confidence, kind="stable")
    wrong = (answers.decisions != answers.labels)[order]
    risks, areas = [], []
    for part in _parts(answers.patients, weights, order):
        answered = np.cumsum(part, axis=1)
        risk = np.cumsum(part * wrong, axis=1) / np.maximum(answered, 1e-9)
        total = answered[:, -1:]
        reached = [(answered < share * total - 1e-9).sum(1) for share in coverages]
        risks.append(np.take_along_axis(risk, np.stack(reached, 1), 1))
        areas.append((risk * part).sum(1) / total[:, 0])
    return np.concatenate(risks), np.concatenate(areas)


def _parts(patients: np.ndarray, weights: np.ndarray, order: np.ndarray) -> Iterator[np.ndarray]:
    """Yields (b, N) weights of the items in `order`, for some of the weightings at a time."""
    step = max(1, _AT_ONCE // len(order))
    for start in range(0, len(weights), step):
        yield weights[start : start + step, patients[order]]
