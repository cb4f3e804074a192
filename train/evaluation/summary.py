"""Figures with intervals and the patients they rest on, as `evaluation.json` holds them.

A figure is {value, low, high, patients}, and `why` where something could not be said: value is None when it rests on
too few patients, low and high when there is no interval. Where figures are resampled by groups and nobody
knows how many people these are, `patients` is None and `groups` is their number.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from runtime.labels import LABELS
from train.evaluation.bootstrap import LEAST_PATIENTS, exact_interval, interval
from train.evaluation.scores import (
    BINS,
    CLASSES,
    Answers,
    bin_of,
    calibration_scores,
    confusion,
    decision_scores,
    ranking_scores,
    risk_at,
)

COVERAGES = tuple(round(0.05 * step, 2) for step in range(1, 21))
_SHARES = {"accuracy", "recall", "specificity", "sensitivity", "precision"}
_NO_PATIENTS = "patients unknown: slices of one person are no independent evidence, so there is no interval"


class Summary:
    """Makes figures of answers from the same resamples of the same patients.

    weights: (resamples, patients) float64 from `draw_patients`; None when patients are unknown.
    unit: what is resampled, ``patients`` or ``groups``.
    """

    def __init__(self, answers: Answers, weights: np.ndarray | None, unit: str = "patients") -> None:
        if weights is None:  # one pretended patient holds all slices: values, and no resamples
            answers = Answers(answers.probabilities, answers.labels, np.zeros(len(answers.labels), np.int64))
        self.answers, self.known, self.unit = answers, weights is not None, unit
        one = np.ones((1, int(answers.patients.max()) + 1))
        self.weights = one if weights is None else np.concatenate([one, weights])
        people = answers.by_patient().labels if self.known else answers.labels
        self.by_class = np.bincount(people, minlength=CLASSES)
        """Patients or groups of each class; slices where patients are unknown."""
        self.counted = [label for label in range(CLASSES) if self.by_class[label] >= LEAST_PATIENTS]

    def figure(self, name: str, values: np.ndarray, patients: int) -> dict[str, Any]:
        """values: (1 + resamples,) float64, the first of the data itself. patients: or groups, that it rests on."""
        count = {"patients": patients if self.known and self.unit == "patients" else None}
        if self.known and self.unit == "groups":
            count["groups"] = patients
        none = {"value": None, "low": None, "high": None, **count}
        if patients < LEAST_PATIENTS:
            what = self.unit if self.known else "slices"
            return {**none, "why": f"not estimable: {patients} {what}, fewer than {LEAST_PATIENTS}"}
        if not np.isfinite(values[0]):
            why = "needs another class" if len(np.unique(self.answers.labels)) < 2 else "not defined here"
            if "precision" in name:
                why = "a class was never answered" if name.startswith("macro") else "never answered"
            return {**none, "why": f"not estimable: {why}"}
        value = float(values[0])
        if not self.known:
            return {"value": value, "low": None, "high": None, **count}
        ends = interval(values[1:], patients)
        if ends is None and name.rpartition(".")[2] in _SHARES and value in (0.0, 1.0):
            ends = exact_interval(value, patients)
        if ends is None:
            return {**none, "value": value, "why": "no interval: all resamples agree"}
        return {"value": value, "low": ends[0], "high": ends[1], **count}

    def decisions(self) -> dict[str, Any]:
        """Everything that is said of decisions and of ranking; JSON-ready."""
        values = decision_scores(self.answers, self.weights, self.counted)
        values |= ranking_scores(self.answers, self.weights, self.counted)
        total, healthy = int(self.by_class.sum()), int(self.by_class[0])
        rests_on = {"specificity": healthy, "sensitivity": total - healthy, "auc": min(healthy, total - healthy)}
        macro = total if self.counted else 0
        return {
            "accuracy": self.figure("accuracy", values["accuracy"], total),
            "balanced_accuracy": self.figure("balanced_accuracy", values["balanced_accuracy"], macro),
            "macro": {
                name: self.figure(f"macro.{name}", values[f"macro_{name}"], macro)
                for name in ("precision", "specificity", "f1", "auc")
            },
            "kappa": self.figure("kappa", values["kappa"], total),
            "demented": {
                name: self.figure(f"demented.{name}", values[f"demented.{name}"], rests_on.get(name, total))
                for name in ("accuracy", "sensitivity", "specificity", "auc")
            },
            "classes": {label: self._of_class(index, values) for index, label in enumerate(LABELS)},
            "counted": [LABELS[label] for label in self.counted],
            "chance": 1 / len(self.counted) if self.counted else None,
            "largest_class": float(np.bincount(self.answers.labels).max() / len(self.answers.labels)),
            "confusion": confusion(self.answers, self.weights[:1])[0].astype(int).tolist(),
        }

    def _of_class(self, index: int, values: dict[str, np.ndarray]) -> dict[str, Any]:
        mine, others = int(self.by_class[index]), int(self.by_class.sum() - self.by_class[index])
        rests_on = {"specificity": others, "auc": min(mine, others)}
        return {
            name: self.figure(f"classes.{name}", values[f"classes.{LABELS[index]}.{name}"], rests_on.get(name, mine))
            for name in ("precision", "recall", "specificity", "f1", "auc")
        }

    def calibration(self) -> dict[str, Any]:
        """ECE, Brier score, NLL, and the bins of the reliability diagram; JSON-ready."""
        found = {
            name: self.figure(name, values, int(self.by_class.sum()))
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
        """ECE, Brier score and NLL of these answers less those of `before`, about the same things; JSON-ready."""
        before = Answers(before.probabilities, before.labels, self.answers.patients)
        new, old = calibration_scores(self.answers, self.weights), calibration_scores(before, self.weights)
        return {name: self.figure(name, new[name] - old[name], int(self.by_class.sum())) for name in new}

    def risk(self) -> dict[str, Any]:
        """The risk-coverage curve, and the area under it; JSON-ready."""
        risks, areas = risk_at(self.answers, self.weights, np.array(COVERAGES))
        figures = [self.figure("risk", risks[:, at], int(self.by_class.sum())) for at in range(len(COVERAGES))]
        curve = {name: [figure[name] for figure in figures] for name in ("value", "low", "high")}
        return {
            "coverage": list(COVERAGES),
            "risk": curve["value"],
            "low": curve["low"],
            "high": curve["high"],
            "area": self.figure("area", areas, int(self.by_class.sum())),
        }

    def share(self, name: str, of: np.ndarray, among: np.ndarray) -> dict[str, Any]:
        """How many of the things `among` ((N,) bool) are `of` ((N,) bool) as well, as a figure."""
        with np.errstate(invalid="ignore"):
            values = (self.weights @ self.answers.tally(1.0 * (of & among))) / (
                self.weights @ self.answers.tally(1.0 * among)
            )
        people = len(np.unique(self.answers.patients[among])) if self.known else int(among.sum())
        return self.figure(name, values, people)


def no_interval() -> str:
    """Why figures over unknown patients have no interval."""
    return _NO_PATIENTS
