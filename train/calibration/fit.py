"""Temperature, rule for studies and thresholds below which the model abstains: fitted on patients, judged on others."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

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
from stageproof.train.calibration.study_fit import cross_fit_study, fit_study, fittable, study_evidence
from stageproof.train.metrics.classification import Answers, stages
from stageproof.train.metrics.intervals import LEAST_PATIENTS

NEVER = math.nextafter(1.0, 0.0)
"""Threshold of a kind of answer for which no threshold is certified: it is given at a probability of 1 only."""
_LIMITS = (0.05, 20.0)


@dataclass(frozen=True)
class Fit:
    """What is stored in the run, and through the manifest decides what Predictor answers."""

    temperature: float | None
    """Logits are divided by this; None where the slices do not determine it."""
    abstain_below: float = 0.0
    """Least probability to answer a slice from; 0 where no risk was asked for."""
    study: StudyRule | None = None
    """With its own threshold; None where the patients are too few or unknown."""

    def apply(self, logits: np.ndarray) -> np.ndarray:
        """(N, classes) float64 probabilities of (N, classes) logits."""
        return probabilities(logits, self.temperature or 1.0)

    def studies(self, logits: np.ndarray, labels: np.ndarray, patients: np.ndarray) -> Answers | None:
        """One answer a patient; None without a rule. logits: (N, classes). labels, patients: (N,) int64."""
        if self.study is None:
            return None
        chances = self.study.probabilities(study_evidence(probabilities(logits), patients))
        return Answers(chances, stages(labels, patients), np.arange(len(chances)))


@dataclass(frozen=True)
class CrossFit:
    """Every patient as a fit on other patients has it."""

    probabilities: np.ndarray
    """(N, classes) float64, of slices, calibrated without their patient."""
    half: np.ndarray
    """(N,) int64, 0 or 1: which half of the patients each slice is in."""
    temperatures: tuple[float | None, float | None]
    """Fitted on half 0, and on half 1."""
    studies: np.ndarray | None
    """(patients, classes) float64, of studies, by a rule fitted without their patient; None where they are too few."""


@dataclass(frozen=True)
class Guarantee:
    """A fit with thresholds, and the certificates of these."""

    fit: Fit
    """A kind of answer without a certificate has the threshold `NEVER`."""
    slices: Certified
    studies: Certified
    fitted: np.ndarray
    """(patients,) bool: whom temperature and rule were fitted on; the others certified the thresholds."""


def stored_fit(record: Mapping[str, Any], where: str) -> Fit:
    """What an earlier evaluation stored in the record of a run; runs of 0.1 have no rule for studies.

    Raises BundleError, naming `where`, for a rule that cannot be read.
    """
    study = record.get("study")
    rule = None if study is None else StudyRule.from_dict(study, len(record["labels"]), f"{where}: study")
    return Fit(float(record["temperature"]), float(record.get("abstain_below") or 0.0), rule)


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float | None:
    """The temperature of least negative log-likelihood (Guo et al. 2017, section 4.2).

    None where the likelihood has no maximum between 0.05 and 20: every slice is right, or the logits say nothing.

    logits: (N, classes) float. labels: (N,) int64.
    """
    from scipy.optimize import minimize_scalar

    rows = np.arange(len(labels))

    def loss(log: float) -> float:  # one minimum: it is convex in the inverse of the temperature
        chances = probabilities(logits, math.exp(log))[rows, labels]
        return float(-np.log(np.maximum(chances, np.finfo(float).tiny)).mean())

    low, high = (math.log(limit) for limit in _LIMITS)
    found = float(minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-7}).x)
    if found < low + 1e-3 or found > high - 1e-3:
        return None
    return math.exp(found)


def fit(logits: np.ndarray, labels: np.ndarray, patients: np.ndarray | None) -> Fit:
    """Temperature, and the rule for studies, from the same slices.

    patients: (N,) int64 from 0; None where a group may be several people: then there is no rule for studies.
    """
    temperature = fit_temperature(logits, labels)
    if patients is None or not fittable(stage := stages(labels, patients)):
        return Fit(temperature)
    return Fit(temperature, study=fit_study(study_evidence(probabilities(logits), patients), stage))


def certify(logits: np.ndarray, labels: np.ndarray, patients: np.ndarray, risk: float, seed: int = 0) -> Guarantee:
    """A fit on a quarter of the patients, or ten, and the thresholds that the others certify for it.

    logits: (N, classes) float. labels, patients: (N,) int64, patients from 0. risk: share in (0, 1).
    """
    stage = stages(labels, patients)
    fitted = split_patients(stage, seed)
    rows, evidence = fitted[patients], study_evidence(probabilities(logits), patients)
    temperature = fit_temperature(logits[rows], labels[rows])
    rule = fit_study(evidence[fitted], stage[fitted])
    if fitted.all():
        nobody = Certified(None, 0, held_out_for(fewest_for_slices(risk)), "no patient is left to certify on")
        return Guarantee(Fit(temperature, NEVER, replace(rule, abstain_below=NEVER)), nobody, nobody, fitted)
    slices = Answers(probabilities(logits, temperature or 1.0), labels, patients)
    wrong = slices.decisions != labels
    _, people = np.unique(patients[~rows], return_inverse=True)
    of_slices = certify_slices(slices.confidence[~rows], wrong[~rows], people, risk, slices.confidence[rows])
    studies = Answers(rule.probabilities(evidence), stage, np.arange(len(stage)))
    mistaken = studies.decisions != stage
    of_studies = certify_studies(studies.confidence[~fitted], mistaken[~fitted], risk)
    least, least_study = (NEVER if one.threshold is None else one.threshold for one in (of_slices, of_studies))
    return Guarantee(Fit(temperature, least, replace(rule, abstain_below=least_study)), of_slices, of_studies, fitted)


def cross_fit(logits: np.ndarray, labels: np.ndarray, patients: np.ndarray, seed: int = 0) -> CrossFit | None:
    """Fit on each half of the patients, apply to the other; None where a half would have fewer than five patients.

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
    """(patients,) int64, 0 or 1: the patients of each class split evenly over two halves, in an order from `seed`.

    labels, patients: (N,) int64 of slices.
    """
    stage = stages(labels, patients)
    drawn = np.random.default_rng(seed).permutation(len(stage))
    order = drawn[np.argsort(stage[drawn], kind="stable")]
    side = np.empty(len(stage), np.int64)
    side[order] = np.arange(len(stage)) % 2
    return side
