"""`Summary`: metrics with intervals and numbers of patients, as in `evaluation.json`.

A metric is {value, low, high, patients}. value is None if it is not estimable, low and high are None if the interval is
not; `why` is then the reason. If the number of patients is unknown, `patients` is None, and `groups` is the number of
groups.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from stageproof.train.metrics.classification import (
    BINS,
    Answers,
    bin_of,
    calibration_scores,
    confusion,
    decision_scores,
    ranking_scores,
    risk_at,
    table_scores,
)
from stageproof.train.metrics.intervals import (
    LEAST_PATIENTS,
    exact,
    extreme_tables,
    jackknife,
    leave_one_out,
    newcombe,
    possible_tables,
)

_WIDEST = 0.99
"""Level of the interval for independent patients (Newcombe; exact shares of each class) that bounds the jackknife's,
which is nearly the whole range if one patient has most of the variance."""
COVERAGES = tuple(round(0.05 * step, 2) for step in range(1, 21))
NO_INTERVAL = "patients unknown: slices of one patient are not independent, so there is no interval"
"""The reason why there are no intervals if patients are unknown."""
_UNKNOWN = "interval not estimable: the dependence between slices is unknown"
_SAME = "interval not estimable: leaving out any patient does not change the value"
Ends = tuple[float, float] | None
_CALIBRATION = {"ece": (0.0, 1.0), "brier": (0.0, 2.0), "nll": (0.0, float("inf"))}


class Summary:
    """Computes metrics of predictions, with intervals over patients.

    unit: what `answers.patients` numbers, ``patients`` or ``groups``; None if unknown: there are then no intervals.
    counted: the classes that macro averages include; None: those with at least five patients.
    inflation: variance of the metrics divided by that for independent patients; more than 1 if the predictions for a
        patient depend on the others (`train.metrics.cross_validation`). Exact intervals divide the number of patients
        by it.
    """

    def __init__(
        self,
        answers: Answers,
        unit: str | None = "patients",
        counted: Sequence[int] | None = None,
        *,
        inflation: float = 1.0,
    ) -> None:
        if unit is None:  # all slices get the same patient number; there are no intervals
            answers = replace(answers, patients=np.zeros(len(answers.labels), np.int64))
        self.answers, self.known, self.unit, self._inflation = answers, unit is not None, unit, inflation
        total = int(answers.patients.max()) + 1
        self.weights = leave_one_out(total) if self.known else np.ones((1, 1))
        self.single = self.known and total == len(answers.labels)
        """Whether there is one prediction for each patient, so that items are independent."""
        people = answers.by_patient().labels if self.known else answers.labels
        self.by_class = np.bincount(people, minlength=len(answers.classes))
        """Number of patients or groups of each class; of slices if patients are unknown."""
        self.total = int(self.by_class.sum())
        positives = int(self.by_class[answers.classes.is_positive].sum())
        self.positives, self.negatives = positives, self.total - positives
        """The same of all positive, and of all negative classes."""
        enough = [label for label, count in enumerate(self.by_class) if count >= LEAST_PATIENTS]
        self.counted = enough if counted is None else list(counted)

    def figure(
        self,
        name: str,
        values: np.ndarray,
        patients: int,
        limits: tuple[float, float] = (0.0, 1.0),
        *,
        ends: Ends = None,
        flat: Callable[[], Ends] = lambda: None,
        of: int | None = None,
    ) -> dict[str, Any]:
        """A metric with its interval, JSON-serialisable.

        values: float64, for the weightings of this summary: the data itself, then without each patient.
        patients: number of patients or groups that contribute. limits: minimum and maximum of the metric.
        ends: the interval; None: by the jackknife. flat: computes the interval if no patient changes the metric.
        of: number of patients that determines whether the metric is estimable; None: `patients`.
        """
        count = {"patients": patients if self.known and self.unit == "patients" else None}
        if self.known and self.unit == "groups":
            count["groups"] = patients
        none = {"value": None, "low": None, "high": None, **count}
        of = patients if of is None else of
        if of < LEAST_PATIENTS:
            what = self.unit if self.known else "slices"
            return {**none, "why": f"not estimable: {of} {what}, fewer than {LEAST_PATIENTS}"}
        if not np.isfinite(values[0]):
            why = "there is only one class" if len(np.unique(self.answers.labels)) < 2 else "undefined for this data"
            if (kind := name.rpartition(".")[2]).endswith("precision"):  # the name of a class may contain the word
                why = "a class was never predicted" if kind == "macro_precision" else "never predicted"
            return {**none, "why": f"not estimable: {why}"}
        value = float(values[0])
        if not self.known:
            return {**none, "value": value, "why": _UNKNOWN}
        ends = ends or jackknife(values, patients, limits, inflation=self._inflation) or flat()
        if ends is None:
            return {**none, "value": value, "why": _SAME}
        return {"value": value, "low": min(ends[0], value), "high": max(ends[1], value), **count}

    def share(self, name: str, of: np.ndarray, among: np.ndarray, least: int | None = None) -> dict[str, Any]:
        """The share of the items `among` ((N,) bool) that are also `of` ((N,) bool), as a metric with interval.

        least: number of patients that determines whether it is estimable; None: those of `among`.
        """
        with np.errstate(invalid="ignore", divide="ignore"):
            values = (self.weights @ self.answers.tally(1.0 * (of & among))) / (
                self.weights @ self.answers.tally(1.0 * among)
            )
        people = len(np.unique(self.answers.patients[among])) if self.known else int(among.sum())
        share, ends = float(values[0]), None
        if self.single and people:
            ends = self._exact(int((of & among).sum()), people)
        elif self.known and people:
            ends = jackknife(values, people, inflation=self._inflation)
            if ends is not None:
                independent = self._even(among) * people / self._inflation
                widest = exact(share * independent, independent, _WIDEST)
                ends = max(ends[0], widest[0]), min(ends[1], widest[1])
        return self.figure(name, values, people, ends=ends, flat=lambda: self._exact(share * people, people), of=least)

    def _exact(self, right: float, total: float) -> tuple[float, float]:
        return exact(right / self._inflation, total / self._inflation)

    def decisions(self) -> dict[str, Any]:
        """All classification and ranking metrics; JSON-serialisable."""
        found = self.classified()
        self._values |= ranking_scores(self.answers, self.weights, self.counted)
        smallest = min((int(self.by_class[label]) for label in self.counted), default=0)
        found["macro"]["auc"] = self._auc("macro_auc", smallest, self.total if self.counted else 0)
        found["positive"]["auc"] = self._auc("positive.auc", self.negatives)
        for index, label in enumerate(self.answers.classes.names):
            found["classes"][label]["auc"] = self._auc(f"classes.{label}.auc", int(self.by_class[index]))
        return found

    def classified(self) -> dict[str, Any]:
        """All classification metrics (without ranking metrics); JSON-serialisable."""
        self._values = decision_scores(self.answers, self.weights, self.counted)
        truth, predicted, names = self.answers.labels, self.answers.decisions, self.answers.classes.names
        everyone, macro = np.ones(len(truth), bool), self.total if self.counted else 0
        return {
            "accuracy": self.share("accuracy", truth == predicted, everyone),
            "balanced_accuracy": self._of_table("balanced_accuracy", macro),
            "macro": {name: self._of_table(f"macro_{name}", macro) for name in ("precision", "specificity", "f1")},
            "kappa": self._of_table("kappa", self.total, (-1.0, 1.0)),
            "positive": self._two_way(everyone),
            "classes": {label: self._of_class(index, label) for index, label in enumerate(names)},
            "counted": [names[label] for label in self.counted],
            "chance": 1 / len(self.counted) if self.counted else None,
            "largest_class": float(np.bincount(truth).max() / len(truth)),
            "confusion": confusion(self.answers, self.weights[:1])[0].astype(int).tolist(),
        }

    def _two_way(self, everyone: np.ndarray) -> dict[str, Any]:
        """Positive against negative classes."""
        truth, predicted = self.answers.positive, self.answers.predicted_positive
        found = {
            "accuracy": self.share("positive.accuracy", truth == predicted, everyone),
            "sensitivity": self.share("positive.sensitivity", predicted, truth, self.positives),
            "specificity": self.share("positive.specificity", ~predicted, ~truth, self.negatives),
        }
        if not (self.positives and self.negatives):  # would be the sensitivity or the specificity under another name
            side, unit = "negative" if self.positives else "positive", self.unit if self.known else "slices"
            found["accuracy"] |= {"value": None, "low": None, "high": None, "why": f"not estimable: no {side} {unit}"}
        return found

    def _of_class(self, index: int, label: str) -> dict[str, Any]:
        truth, predicted = self.answers.labels == index, self.answers.decisions == index
        mine, path = int(self.by_class[index]), f"classes.{label}"
        return {
            "precision": self.share(f"{path}.precision", truth, predicted, mine),
            "recall": self.share(f"{path}.recall", predicted, truth, mine),
            # The specificity of a class without patients is meaningless.
            "specificity": self.share(f"{path}.specificity", ~predicted, ~truth, self.total - mine if mine else 0),
            "f1": self._of_table(f"{path}.f1", mine),
        }

    def _of_table(self, name: str, patients: int, limits: tuple[float, float] = (0.0, 1.0)) -> dict[str, Any]:
        """A metric of the confusion matrix that is not a share of items."""
        values, table = self._values[name], confusion(self.answers, self.weights[:1])[0]
        people = self.by_class * self._even() / self._inflation

        def reached(tables: np.ndarray) -> Ends:
            found = table_scores(tables, self.answers.classes, self.counted)[name]
            found = found[np.isfinite(found)]
            varies = len(found) and np.ptp(found) > 1e-9  # with a single class, precision is always 1
            return (float(found.min()), float(found.max())) if varies else None

        ends = jackknife(values, patients, limits, inflation=self._inflation) if self.known else None
        if ends is not None and (widest := reached(extreme_tables(table, people, _WIDEST))) is not None:
            ends = max(ends[0], widest[0]), min(ends[1], widest[1])
        possible = possible_tables(table, people)
        return self.figure(name, values, patients, limits, ends=ends, flat=lambda: reached(possible))

    def _even(self, among: np.ndarray | None = None) -> float:
        """Effective number of patients, divided by their number: less than 1 if they have unequal numbers of slices.

        among: (N,) bool, the items that count; None: all.
        """
        items = np.bincount(self.answers.patients if among is None else self.answers.patients[among])
        items = items[items > 0]
        return float(items.sum() ** 2 / (len(items) * (items**2).sum()))

    def _auc(self, name: str, positives: int, patients: int | None = None) -> dict[str, Any]:
        """An area under the ROC curve. positives: number of positive patients.

        patients: number reported with it; None: the smaller of positives and negatives.
        """
        values, others = self._values[name], self.total - positives
        smaller = min(positives, others)
        count = smaller if patients is None else patients
        if not np.isfinite(values[0]) or not smaller:
            return self.figure(name, values, count)
        even = self._even()
        sides = positives * even / self._inflation, others * even / self._inflation
        ends = jackknife(values, count, inflation=self._inflation)
        if ends is not None:
            widest = newcombe(float(values[0]), *sides, level=_WIDEST)
            ends = max(ends[0], widest[0]), min(ends[1], widest[1])
        return self.figure(name, values, count, ends=ends, flat=lambda: newcombe(float(values[0]), *sides))

    def calibration(self) -> dict[str, Any]:
        """ECE, Brier score, NLL, and the bins of the reliability diagram; JSON-serialisable."""
        found = {
            name: self.figure(name, values, self.total, _CALIBRATION[name])
            for name, values in calibration_scores(self.answers, self.weights).items()
        }
        bins, right = bin_of(self.answers.confidence), self.answers.decisions == self.answers.labels
        rows = [np.flatnonzero(bins == one) for one in range(BINS)]
        reliability = [
            {
                "confidence": float(self.answers.confidence[row].mean()) if len(row) else None,
                "accuracy": float(right[row].mean()) if len(row) else None,
                "count": len(row),
            }
            for row in rows
        ]
        return {**found, "reliability": reliability}

    def change(self, before: Answers) -> dict[str, Any]:
        """ECE, Brier score and NLL minus those of `before`, for the same items; JSON-serialisable."""
        before = replace(before, patients=self.answers.patients)
        new, old = calibration_scores(self.answers, self.weights), calibration_scores(before, self.weights)
        same = (0.0, 0.0) if np.array_equal(before.probabilities, self.answers.probabilities) else None
        free = (-float("inf"), float("inf"))
        return {name: self.figure(name, new[name] - old[name], self.total, free, ends=same) for name in new}

    def risk(self) -> dict[str, Any]:
        """The risk-coverage curve and the area under it; JSON-serialisable."""
        risks, areas = risk_at(self.answers, self.weights, np.array(COVERAGES))
        surest = self.answers.patients[np.argsort(-self.answers.confidence, kind="stable")]
        figures = []
        for at, coverage in enumerate(COVERAGES):
            things = int(np.ceil(coverage * len(surest) - 1e-9))
            figures.append(self._risk(risks[:, at], len(np.unique(surest[:things]))))
        curve = {name: [figure[name] for figure in figures] for name in ("value", "low", "high")}
        area = float(areas[0])
        flat = self._exact(area * self.total, self.total)
        return {
            "coverage": list(COVERAGES),
            "risk": curve["value"],
            "low": curve["low"],
            "high": curve["high"],
            "area": self.figure("area", areas, self.total, flat=lambda: flat),
        }

    def _risk(self, values: np.ndarray, people: int) -> dict[str, Any]:
        """An error rate with interval. people: number of patients of the slices."""
        share = self._exact(float(values[0]) * people, people)
        ends = share if self.single else None
        return self.figure("risk", values, people, ends=ends, flat=lambda: share, of=self.total)


def over_units(unit: str) -> str:
    """Description of the intervals. unit: ``patients`` or ``groups``."""
    return f"over {unit}: exact for shares of {unit} (Clopper and Pearson), else delete-one jackknife"
