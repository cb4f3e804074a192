"""Temperature and the threshold below which the model abstains, fitted on patients, judged on other patients."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from runtime.calibration import probabilities
from train.evaluation.bootstrap import LEAST_PATIENTS
from train.evaluation.scores import stages

_LIMITS = (0.05, 20.0)


@dataclass(frozen=True)
class Fit:
    """What is stored in the run, and through the manifest decides what Predictor says."""

    temperature: float | None
    """Logits are divided by this; None where the slices do not tell it."""
    abstain_below: float | None
    """Least probability to answer from; None where none was asked for, or none keeps the risk."""

    def apply(self, logits: np.ndarray) -> np.ndarray:
        """(N, classes) float64 probabilities of (N, classes) logits."""
        return probabilities(logits, self.temperature or 1.0)


@dataclass(frozen=True)
class CrossFit:
    """Every patient as a fit on other patients has it."""

    probabilities: np.ndarray
    """(N, classes) float64, of slices, calibrated without their patient."""
    answered: np.ndarray
    """(N,) bool, whether they are sure enough by a threshold chosen without their patient."""
    half: np.ndarray
    """(N,) int64, 0 or 1: which half of the patients each slice is in."""
    fits: tuple[Fit, Fit]
    """Fitted on half 0, and on half 1."""


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


def choose_threshold(chances: np.ndarray, labels: np.ndarray, patients: np.ndarray, risk: float) -> float | None:
    """The least probability at which at most `risk` of the slices answered are wrong; 0 where all may be answered.

    None where no threshold keeps that risk on slices of enough patients: one wrong in ten can only be told from ten,
    and nothing from fewer than five.

    chances: (N, classes) float64. labels, patients: (N,) int64. risk: share in (0, 1).
    """
    confidence, wrong = chances.max(1), chances.argmax(1) != labels
    order = np.argsort(-confidence, kind="stable")
    shares = np.cumsum(wrong[order]) / np.arange(1, len(order) + 1)
    people = np.cumsum(np.isin(np.arange(len(order)), np.unique(patients[order], return_index=True)[1]))
    last_of_tie = np.diff(confidence[order], append=-1.0) < 0
    held = np.flatnonzero((shares <= risk) & last_of_tie & (people >= enough_patients(risk)))
    if not len(held):
        return None
    return 0.0 if held[-1] == len(order) - 1 else min(float(confidence[order][held[-1]]), np.nextafter(1.0, 0.0))


def enough_patients(risk: float) -> int:
    """How many patients a threshold for `risk` must leave answered."""
    return max(LEAST_PATIENTS, math.ceil(1 / risk - 1e-9))


def fit(logits: np.ndarray, labels: np.ndarray, patients: np.ndarray, risk: float | None) -> Fit:
    """Temperature, and the threshold for `risk` at that temperature, from the same slices."""
    temperature = fit_temperature(logits, labels)
    chances = probabilities(logits, temperature or 1.0)
    return Fit(temperature, None if risk is None else choose_threshold(chances, labels, patients, risk))


def cross_fit(
    logits: np.ndarray, labels: np.ndarray, patients: np.ndarray, risk: float | None, seed: int = 0
) -> CrossFit | None:
    """Fit on each half of the patients, apply to the other; None where a half would have fewer than five patients.

    logits: (N, classes) float. labels: (N,) int64. patients: (N,) int64 from 0.
    """
    side = halves(labels, patients, seed)
    if min(np.bincount(side, minlength=2)) < LEAST_PATIENTS:
        return None
    half = side[patients]
    fits = [fit(logits[half == one], labels[half == one], patients[half == one], risk) for one in (0, 1)]
    chances, answered = np.empty(logits.shape), np.zeros(len(logits), bool)
    for one, fitted in enumerate(reversed(fits)):
        rows = half == one
        chances[rows] = fitted.apply(logits[rows])
        if fitted.abstain_below is not None:
            answered[rows] = chances[rows].max(1) >= fitted.abstain_below
    return CrossFit(chances, answered, half, (fits[0], fits[1]))


def halves(labels: np.ndarray, patients: np.ndarray, seed: int = 0) -> np.ndarray:
    """(patients,) int64, 0 or 1: the patients of each class dealt to two halves in turn, in an order drawn from `seed`.

    labels, patients: (N,) int64 of slices.
    """
    stage = stages(labels, patients)
    drawn = np.random.default_rng(seed).permutation(len(stage))
    order = drawn[np.argsort(stage[drawn], kind="stable")]
    side = np.empty(len(stage), np.int64)
    side[order] = np.arange(len(stage)) % 2
    return side
