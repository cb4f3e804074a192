"""`pool`: the metrics of a cross-validation, as means over the folds and pooled over all patients.

Each patient is predicted by the network of the fold that held them out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from stageproof.runtime.errors import CheckpointError
from stageproof.runtime.labels import LabelSet
from stageproof.runtime.softmax import probabilities
from stageproof.train.calibration.fit import CrossFit, cross_fit
from stageproof.train.calibration.fit_and_assess import assessed, debiased
from stageproof.train.metrics.classification import Answers, class_counts, decision_scores, ranking_scores
from stageproof.train.metrics.cross_validation import DECIDED, DEPENDENCE, fold_figures, mean_of_folds
from stageproof.train.metrics.intervals import LEVEL
from stageproof.train.metrics.with_intervals import NO_INTERVAL, Summary, over_units
from stageproof.train.recipes import same_recipe
from stageproof.train.runs.pseudonyms import public_source
from stageproof.train.runs.record import label_set_of, read_record, recorded_verdict
from stageproof.train.runs.split_file import read_split
from stageproof.train.test_set.held_out import HeldOut, held_out
from stageproof.train.test_set.predictions import predict_slices

SCHEMA = 2
"""1: without clinical order and positive classes, and with ``demented`` for ``positive``."""
OF_FOLDS = ("accuracy", "balanced_accuracy", "kappa", "positive.accuracy", "positive.auc")
LEVELS = ("slices", "patients")
_UNKNOWN = "interval not estimable: the dependence between slices is unknown"


@dataclass(frozen=True)
class Folds:
    """The predictions of all folds."""

    slices: Answers
    """At temperature 1. `patients` numbers the groups, or the slices, if patients are unknown."""
    fold: np.ndarray
    """(N,) int64 from 0: the fold that held out each slice."""
    unit: str | None
    """``patients`` or ``groups``; None if neither is known."""
    studies: np.ndarray | None = None
    """(patients, classes) float64 probabilities of the study rule, fitted on other patients of the same fold. None if
    any fold has too few patients for it; the probabilities of a study are then the mean over its slices."""
    calibrated: np.ndarray | None = None
    """(N, classes) float64 probabilities of slices at temperatures fitted on other patients of the same fold."""

    @property
    def number(self) -> int:
        """Number of folds."""
        return int(self.fold.max()) + 1

    def patients(self) -> Answers:
        """One prediction for each patient, over all folds."""
        mean = self.slices.by_patient()
        return mean if self.studies is None else replace(mean, probabilities=self.studies)

    def of_fold(self, number: int) -> tuple[Answers, Answers | None]:
        """The predictions of one fold, by slice and by patient; the second is None if patients are unknown."""
        rows = self.fold == number
        people, mine = np.unique(self.slices.patients[rows], return_inverse=True)
        whole = self.slices
        slices = Answers(whole.probabilities[rows], whole.labels[rows], mine.astype(np.int64), whole.classes)
        if self.unit != "patients":
            return slices, None
        mean = slices.by_patient()
        return slices, mean if self.studies is None else replace(mean, probabilities=self.studies[people])


def pool(runs: Sequence[Path]) -> dict[str, Any]:
    """The content of `crossvalidation.json`, computed from the runs of all folds and their data.

    Probabilities of slices are at temperature 1, except in `calibration`, where the temperature of each fold is fitted
    on one half of its held-out patients and evaluated on the other half. The prediction for a patient is that of the
    study rule, fitted on other patients of the fold, or the mean over the slices (see `studies_by`).

    Raises CheckpointError if the runs are not the folds of one cross-validation, DatasetError if the data has changed.
    """
    records = [read_record(run) for run in runs]
    _check_together(runs, records)
    folds = _answered(runs, records)
    labels, unit, classes = folds.slices.labels, folds.unit, folds.slices.classes
    people, known = int(folds.slices.patients.max()) + 1, unit == "patients"
    return {
        "schema": SCHEMA,
        "recipe": records[0]["recipe"],
        "start": records[0]["start"],
        "data": {
            "source": public_source(records[0]["data"]["source"]),
            "digest": records[0]["data"]["digest"],
            "slices": len(labels),
            "slices_by_class": class_counts(labels, classes),
            "verdict": unit or "unknown",
            "groups": people if unit == "groups" else None,
            "patients": people if known else None,
            "patients_by_class": class_counts(folds.slices.by_patient().labels, classes) if known else None,
        },
        "split": {
            "by": records[0]["split"]["by"],
            "seed": records[0]["split"]["seed"],
            "folds": len(runs),
            "leaked": [record["split"]["leaked"] for record in records] if unit else None,
        },
        "shuffled_labels": records[0]["split"].get("shuffled_labels"),
        "method": {
            "level": LEVEL,
            "variance": DEPENDENCE,
            "intervals": NO_INTERVAL
            if unit is None
            else f"{over_units(unit)}; the variance is doubled, because the networks of different folds share training "
            "patients (Bates, Hastie and Tibshirani 2024)",
        },
        **figures(folds),
        "calibration": _calibration(folds),
    }


def figures(folds: Folds) -> dict[str, Any]:
    """The label set, and the classification and ranking metrics of `crossvalidation.json`.

    ``folds``: values of each fold. ``over_folds``: their mean, with an interval. ``slices`` and ``patients``: metrics
    pooled over all folds. ``studies_by``: how patients are predicted.
    """
    slices = Summary(folds.slices, folds.unit, inflation=DEPENDENCE).decisions()
    counted = [folds.slices.classes.index(label) for label in slices["counted"]]
    by_fold = [_fold(folds, number, counted) for number in range(folds.number)]
    levels = LEVELS if folds.unit == "patients" else LEVELS[:1]
    everyone = Summary(folds.patients(), counted=counted, inflation=DEPENDENCE) if folds.unit == "patients" else None
    return {
        **folds.slices.classes.to_dict(),
        "folds": [_values(one) for one in by_fold],
        "over_folds": {level: _over_folds([one[level] for one in by_fold], folds, level) for level in levels},
        "slices": slices,
        "patients": everyone.decisions() if everyone else None,
        "studies_by": None if everyone is None else "mean" if folds.studies is None else "cross-fitted",
    }


def _answered(runs: Sequence[Path], records: Sequence[dict[str, Any]]) -> Folds:
    """Predict the held-out slices of each fold with the network of that fold."""
    who = {name: patient for name, (patient, _) in read_split(runs[0]).items()}
    unit = _unit(records[0])
    names: list[str] = []
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    crossed: list[tuple[CrossFit | None, np.ndarray | None]] = []
    for run, record in zip(runs, records, strict=True):
        held = held_out(run, record, None)
        names += held.slices.names
        logits = predict_slices(run, record, held.slices)
        parts.append((probabilities(logits), held.slices.labels))
        crossed.append((_cross_fitted(logits, held), held.patients))
    if len(set(names)) < len(names):
        raise CheckpointError(
            f"{runs[0].parent}: a slice is held out in two folds. Train all folds with the same --seed."
        )
    people = np.unique([who[name] if unit else name for name in names], return_inverse=True)[1].astype(np.int64)
    chances, labels = (np.concatenate(column) for column in zip(*parts, strict=True))
    fold = np.repeat(np.arange(len(runs)), [len(part[1]) for part in parts])
    calibrated = [one.probabilities for one, _ in crossed if one is not None]
    studies = [
        one.studies[mine] for one, mine in crossed if one is not None and one.studies is not None and mine is not None
    ]
    return Folds(
        Answers(chances, labels, people, label_set_of(records[0], runs[0])),
        fold,
        unit,
        _by_person(np.concatenate(studies), people) if len(studies) == len(runs) and unit == "patients" else None,
        np.concatenate(calibrated) if len(calibrated) == len(runs) else None,
    )


def _by_person(values: np.ndarray, people: np.ndarray) -> np.ndarray:
    """(patients, classes): one row for each patient. values: (N, classes), equal for all slices of a patient."""
    found = np.empty((int(people.max()) + 1, values.shape[1]))
    found[people] = values
    return found


def _unit(record: dict[str, Any]) -> str | None:
    """The sampling unit of intervals: ``patients`` or ``groups``; None if patients are unknown."""
    verdict = recorded_verdict(record)
    return None if verdict == "unknown" else verdict


def _cross_fitted(logits: np.ndarray, held: HeldOut) -> CrossFit | None:
    """Cross-fitted probabilities of the slices and studies of one fold. None if patients are unknown, if some of them
    are in the training set, or if half of them are too few."""
    if held.unit is None or held.patients is None or held.leaked:
        return None
    return cross_fit(logits, held.slices.labels, held.patients)


def _calibration(folds: Folds) -> dict[str, Any] | None:
    """Calibration of slices before and after temperature scaling, and of studies; None unless all folds have it."""
    if folds.calibrated is None:
        return None
    before = folds.slices
    after = replace(before, probabilities=folds.calibrated)
    people = folds.patients() if folds.unit == "patients" and folds.studies is not None else None
    chance = assessed(before, after, people, 0)
    why = "not estimable: needs a calibrated probability of the stage of each patient"
    first, second = (Summary(one, folds.unit, inflation=DEPENDENCE) for one in (before, after))
    found = {
        "before": debiased(first.calibration(), chance and chance["before"], why),
        "after": debiased(second.calibration(), chance and chance["after"], why),
        "change": debiased(second.change(before), None, "see the bands"),
    }
    if people is not None:
        studies = Summary(people, inflation=DEPENDENCE).calibration()
        found["patients"] = debiased(studies, chance and chance["patients"], why)
    return found


def _check_together(runs: Sequence[Path], records: Sequence[dict[str, Any]]) -> None:
    """Raise CheckpointError unless all runs have the same data, classes, split and recipe."""
    classes = [label_set_of(record, run) for run, record in zip(runs, records, strict=True)]
    for run, those in zip(runs, classes, strict=True):
        if those != classes[0]:
            raise CheckpointError(
                f"{run} has the classes {_described(those)}, and {runs[0]} has {_described(classes[0])}. Delete one of "
                "them and run the same command again."
            )
    for run, record in zip(runs[1:], records[1:], strict=True):
        first = records[0]
        same = [record["data"]["digest"] == first["data"]["digest"], same_recipe(record["recipe"], first["recipe"])]
        same += [record["split"].get(key) == first["split"].get(key) for key in ("by", "seed", "shuffled_labels")]
        if not all(same):
            raise CheckpointError(
                f"{run} has other data, another recipe or another split than {runs[0]}. Delete it and run "
                "the same command again."
            )


def _described(classes: LabelSet) -> str:
    return f"{', '.join(classes.names)} (positive: {', '.join(classes.positive)})"


def _fold(folds: Folds, number: int, counted: Sequence[int]) -> dict[str, Any]:
    """Metrics of one fold at each level: name → (value, variance over patients), NaN if undefined; and its size.

    counted: the classes over which balanced accuracy is averaged, the same in all folds.
    """
    slices, patients = folds.of_fold(number)
    people = int(slices.patients.max()) + 1
    held = {"slices": len(slices.labels), "patients": people if folds.unit == "patients" else None}
    found: dict[str, Any] = {"held_out": held, "slices": _scored(slices, counted)}
    found["patients"] = None if patients is None else _scored(patients, counted)
    return found


def _scored(answers: Answers, counted: Sequence[int]) -> dict[str, tuple[float, float]]:
    """Metrics of `answers`. Balanced accuracy is NaN if a class of `counted` is missing: a mean over fewer classes
    would be a different metric."""

    def scores(weights: np.ndarray) -> dict[str, np.ndarray]:
        return decision_scores(answers, weights, counted) | ranking_scores(answers, weights, counted)

    return fold_figures(scores, OF_FOLDS, int(answers.patients.max()) + 1)


def _values(fold: dict[str, Any]) -> dict[str, Any]:
    """A fold as in `crossvalidation.json`: values without variances, None if undefined."""

    def plain(level: dict[str, tuple[float, float]] | None) -> dict[str, float | None] | None:
        if level is None:
            return None
        return {name: value if np.isfinite(value) else None for name, (value, _) in level.items()}

    return {"held_out": fold["held_out"], **{level: plain(fold[level]) for level in LEVELS}}


def _over_folds(found: Sequence[dict[str, tuple[float, float]]], folds: Folds, level: str) -> dict[str, Any]:
    """Name → {mean, sd, folds, low, high}, and `why` if there is no interval."""
    people, means = int(folds.slices.patients.max()) + 1, {}
    for name in OF_FOLDS:
        values, variances = zip(*(one[name] for one in found), strict=True)
        least = -1.0 if name == "kappa" else 0.0
        dependence = DECIDED if level == "patients" and name != "positive.auc" else DEPENDENCE
        figure = mean_of_folds(values, variances, people, least=least, dependence=dependence)
        if folds.unit is None:
            figure |= {"low": None, "high": None, "why": _UNKNOWN}
        means[name] = {"mean": figure.pop("value"), **figure}
    return means
