"""Fits temperature, study rule and abstention thresholds, each on other patients than those it is evaluated on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from stageproof.runtime.labels import LabelSet
from stageproof.runtime.softmax import probabilities
from stageproof.runtime.study import StudyRule
from stageproof.train.calibration.abstention import (
    Certified,
    certify_slices,
    certify_studies,
    fewest_for_slices,
    held_out_for,
    split_patients,
)
from stageproof.train.calibration.study_fit import cross_fit_study, fit_study, fittable, folds, study_evidence
from stageproof.train.metrics.classification import Answers, stages
from stageproof.train.metrics.intervals import LEAST_PATIENTS

NEVER = math.nextafter(1.0, 0.0)
"""Threshold if none is certified: abstain unless the probability is 1."""
_LIMITS = (0.05, 20.0)


@dataclass(frozen=True)
class Fit:
    """Fitted parameters, stored in the run and, through the manifest, used by Predictor."""

    temperature: float | None
    """Divisor of the logits; None if the slices do not determine it."""
    abstain_below: float = 0.0
    """Abstention threshold of slices: the smallest probability that is answered; 0 without a target risk."""
    study: StudyRule | None = None
    """Study rule, with its own abstention threshold; None if patients are unknown or too few."""

    def apply(self, logits: np.ndarray) -> np.ndarray:
        """(N, classes) float64 probabilities of (N, classes) logits."""
        return probabilities(logits, self.temperature or 1.0)

    def studies(
        self, logits: np.ndarray, labels: np.ndarray, patients: np.ndarray, classes: LabelSet
    ) -> Answers | None:
        """One prediction for each patient; None without a study rule.

        logits: (N, classes) float. labels, patients: (N,) int64, patients from 0.
        """
        if self.study is None:
            return None
        chances = self.study.probabilities(study_evidence(probabilities(logits), patients))
        return Answers(chances, stages(labels, patients), np.arange(len(chances)), classes)


@dataclass(frozen=True)
class CrossFit:
    """Cross-fitted probabilities: those of each patient are from a fit on other patients."""

    probabilities: np.ndarray
    """(N, classes) float64, of slices."""
    half: np.ndarray
    """(N,) int64, 0 or 1: the half of the patients to which each slice belongs."""
    temperatures: tuple[float | None, float | None]
    """Fitted on half 0, and on half 1."""
    studies: np.ndarray | None
    """(patients, classes) float64, of studies; None if there are too few patients."""


@dataclass(frozen=True)
class Guarantee:
    """A fit with abstention thresholds, and their certification."""

    fit: Fit
    """If slices or studies have no certified threshold, theirs is `NEVER`."""
    slices: Certified
    studies: Certified
    fitted: np.ndarray
    """(patients,) bool: used to fit temperature and study rule; the others were used to certify the thresholds."""


def stored_fit(record: Mapping[str, Any], where: str) -> Fit:
    """The fit that an earlier evaluation stored in the record of a run. Runs of 0.1 have no study rule.

    Raises BundleError for an invalid study rule. where: the file, for the message.
    """
    study = record.get("study")
    rule = None if study is None else StudyRule.from_dict(study, len(record["labels"]), f"{where}: study")
    return Fit(float(record["temperature"]), float(record.get("abstain_below") or 0.0), rule)


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float | None:
    """The temperature that minimises the negative log-likelihood (Guo et al. 2017, section 4.2).

    None if the minimum is not between 0.05 and 20: all slices are classified correctly, or the logits are
    uninformative.

    logits: (N, classes) float. labels: (N,) int64.
    """
    from scipy.optimize import minimize_scalar

    rows = np.arange(len(labels))

    def loss(log: float) -> float:  # convex in the inverse of the temperature, so there is one minimum
        chances = probabilities(logits, math.exp(log))[rows, labels]
        return float(-np.log(np.maximum(chances, np.finfo(float).tiny)).mean())

    low, high = (math.log(limit) for limit in _LIMITS)
    found = float(minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-7}).x)
    if found < low + 1e-3 or found > high - 1e-3:
        return None
    return math.exp(found)


def fit(logits: np.ndarray, labels: np.ndarray, patients: np.ndarray | None) -> Fit:
    """Temperature and study rule, fitted on the same slices.

    patients: (N,) int64 from 0; None if a group may contain several patients: there is then no study rule.
    """
    temperature = fit_temperature(logits, labels)
    if patients is None or not fittable(stage := stages(labels, patients)):
        return Fit(temperature)
    return Fit(temperature, study=fit_study(study_evidence(probabilities(logits), patients), stage))


def certify(logits: np.ndarray, labels: np.ndarray, patients: np.ndarray, risk: float, seed: int = 0) -> Guarantee:
    """A fit on a quarter of the patients (at least ten), with thresholds certified on the others.

    logits: (N, classes) float. labels, patients: (N,) int64, patients from 0. risk: share in (0, 1).
    """
    stage = stages(labels, patients)
    fitted = split_patients(stage, seed)
    rows, evidence = fitted[patients], study_evidence(probabilities(logits), patients)
    temperature = fit_temperature(logits[rows], labels[rows])
    rule = fit_study(evidence[fitted], stage[fitted])
    if fitted.all():
        none = Certified(None, 0, held_out_for(fewest_for_slices(risk)), "no patients are left for certification")
        return Guarantee(Fit(temperature, NEVER, replace(rule, abstain_below=NEVER)), none, none, fitted)
    slices, studies = probabilities(logits, temperature or 1.0), rule.probabilities(evidence)
    wrong, confidence = slices.argmax(1) != labels, slices.max(1)
    _, people = np.unique(patients[~rows], return_inverse=True)
    of_slices = certify_slices(confidence[~rows], wrong[~rows], people, risk, confidence[rows])
    mistaken = studies.argmax(1) != stage
    of_studies = certify_studies(studies.max(1)[~fitted], mistaken[~fitted], risk)
    least, least_study = (NEVER if one.threshold is None else one.threshold for one in (of_slices, of_studies))
    return Guarantee(Fit(temperature, least, replace(rule, abstain_below=least_study)), of_slices, of_studies, fitted)


def cross_fit(logits: np.ndarray, labels: np.ndarray, patients: np.ndarray, seed: int = 0) -> CrossFit | None:
    """Fit on each half of the patients and apply to the other half; None if a half has fewer than five patients.

    logits: (N, classes) float. labels: (N,) int64. patients: (N,) int64 from 0.
    """
    side = halves(labels, patients, seed)
    if min(np.bincount(side, minlength=2)) < LEAST_PATIENTS:
        return None
    half = side[patients]
    found = [fit_temperature(logits[half == one], labels[half == one]) for one in (0, 1)]
    chances = np.empty(logits.shape)
    for one, temperature in enumerate(reversed(found)):
        chances[half == one] = probabilities(logits[half == one], temperature or 1.0)
    studies = cross_fit_study(study_evidence(probabilities(logits), patients), stages(labels, patients), seed)
    return CrossFit(chances, half, (found[0], found[1]), studies)


def halves(labels: np.ndarray, patients: np.ndarray, seed: int = 0) -> np.ndarray:
    """(patients,) int64, 0 or 1: random halves, stratified by class.

    labels, patients: (N,) int64 of slices.
    """
    return folds(stages(labels, patients), seed, 2)
