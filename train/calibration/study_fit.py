"""The rule for studies (`runtime.study`), fitted on patients and judged on other patients.

A multinomial logistic regression of the patient's stage on the mean evidence of the slices, with one slope for all
classes and an intercept for each (van Hoorde et al. 2014 call it logistic recalibration; Alexandari et al. 2020 bias-
corrected temperature scaling). Jeffreys' prior (Firth 1993) keeps it finite where the stages are perfectly separated or
a class has no patient, and takes away most of the bias of the slope that few patients bring.
"""

from __future__ import annotations

import numpy as np

from stageproof.runtime.study import StudyRule, evidence_of
from stageproof.train.metrics.intervals import LEAST_PATIENTS

FOLDS = 5
_STEEPEST = 1e3
_PRIOR = 0.25
"""Power of the information's determinant. Jeffreys' is 1/2, which makes the mean of the slope right; half of it makes
the median right (simulated: docs/statistics/calibration.md)."""


def study_evidence(probabilities: np.ndarray, patients: np.ndarray) -> np.ndarray:
    """(patients, classes) float64 mean evidence of each patient's slices.

    probabilities: (N, classes) at temperature 1. patients: (N,) int64 from 0, each with at least one slice.
    """
    slices = evidence_of(probabilities)
    total = np.zeros((int(patients.max()) + 1, slices.shape[1]))
    np.add.at(total, patients, slices)
    found: np.ndarray = total / np.bincount(patients)[:, None]
    return found


def fittable(stage: np.ndarray) -> bool:
    """Whether these patients ((patients,) int64 stages) are enough: ten, and two classes with five or more."""
    return len(stage) >= 2 * LEAST_PATIENTS and int((np.bincount(stage) >= LEAST_PATIENTS).sum()) >= 2


def fit_study(evidence: np.ndarray, stage: np.ndarray, weights: np.ndarray | None = None) -> StudyRule:
    """The rule of greatest likelihood under the prior; a slope below 0 becomes 0.

    evidence: (patients, classes) float64. stage: (patients,) int64. weights: (patients,) float64, what each counts.
    """
    classes = evidence.shape[1]
    weights = np.ones(len(stage)) if weights is None else weights
    # A patient's evidence less its mean over the classes gives the same probabilities, and a better scale.
    centred = evidence - evidence.mean(1, keepdims=True)
    scale = max(float(np.sqrt((centred**2).mean())), 1e-9)
    theta = fit_parameters(design_of(centred / scale), stage, weights)
    if theta[-1] <= 0:
        theta = np.append(fit_parameters(design_of(centred / scale)[:, :, :-1], stage, weights), 0.0)
    intercepts = np.append(theta[: classes - 1], 0.0)
    return StudyRule(tuple((intercepts - intercepts.mean()).tolist()), float(min(theta[-1] / scale, _STEEPEST)))


def cross_fit_study(evidence: np.ndarray, stage: np.ndarray, seed: int = 0) -> np.ndarray | None:
    """(patients, classes) float64: each patient's probabilities by a rule fitted on other patients, None where too few.

    Patients are weighted so that every fit sees the classes in the shares of all patients together: the prevalence is
    that of these patients, and no patient is expected less of a class for having been left out of it.
    """
    part = folds(stage, seed)
    if not fittable(stage):
        return None
    classes, found = evidence.shape[1], np.empty(evidence.shape)
    everyone = np.bincount(stage, minlength=classes)
    for one in range(FOLDS):
        rest = part != one
        counts = np.bincount(stage[rest], minlength=classes)
        weights = (everyone / np.maximum(counts, 1) * rest.mean())[stage[rest]]
        found[~rest] = fit_study(evidence[rest], stage[rest], weights).probabilities(evidence[~rest])
    return found


def folds(stage: np.ndarray, seed: int = 0, count: int = FOLDS) -> np.ndarray:
    """(patients,) int64 from 0: the patients of each class split evenly over the folds, in an order drawn from `seed`.

    stage: (patients,) int64.
    """
    drawn = np.random.default_rng(seed).permutation(len(stage))
    order = drawn[np.argsort(stage[drawn], kind="stable")]
    part = np.empty(len(stage), np.int64)
    part[order] = np.arange(len(stage)) % count
    return part


def design_of(evidence: np.ndarray) -> np.ndarray:
    """(patients, classes, parameters): intercepts of all classes but the last, and the slope."""
    patients, classes = evidence.shape
    constant = np.broadcast_to(np.eye(classes)[:, :-1], (patients, classes, classes - 1))
    return np.concatenate([constant, evidence[:, :, None]], axis=2)


def fit_parameters(design: np.ndarray, stage: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(parameters,) float64 at the greatest likelihood times a power of the information's determinant."""
    from scipy.optimize import minimize

    rows, count = np.arange(len(stage)), design.shape[2]
    mine = design[rows, stage]

    def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
        scores = design @ theta
        scores -= scores.max(1, keepdims=True)
        chances = np.exp(scores)
        total = chances.sum(1, keepdims=True)
        chances /= total
        mean = np.einsum("nk,nkp->np", chances, design)
        apart = design - mean[:, None]  # (patients, classes, parameters)
        second = (weights[:, None] * chances)[:, :, None] * apart
        information = np.einsum("nkp,nkq->pq", second, apart)
        ridge = information + 1e-9 * np.eye(count)
        _, size = np.linalg.slogdet(ridge)
        inverse = np.linalg.inv(ridge)
        # d log det I / d theta: the third central moments of the design under the model's probabilities.
        leverage = np.einsum("nkp,pq,nkq->nk", apart, inverse, apart)
        value = float(weights @ (np.log(total[:, 0]) - scores[rows, stage])) - _PRIOR * size
        gradient = (
            weights @ (mean - mine) - np.einsum("nk,nkp->p", leverage * weights[:, None] * chances, apart) * _PRIOR
        )
        return value, gradient

    return np.asarray(minimize(loss, np.append(np.zeros(count - 1), 1.0), jac=True, method="BFGS").x)
