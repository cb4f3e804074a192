"""Fits the study rule (`runtime.study`), which predicts the stage of a patient from all slices of a study.

It is a multinomial logistic regression of the stage on the mean evidence of the slices, with one slope for all classes
and an intercept for each (logistic recalibration in van Hoorde et al. 2014; bias-corrected temperature scaling in
Alexandari et al. 2020). A Jeffreys-type prior (Firth 1993) keeps the estimate finite if classes are perfectly separated
or a class has no patient, and removes most of the small-sample bias of the slope.
"""

from __future__ import annotations

import numpy as np

from stageproof.runtime.study import StudyRule, evidence_of
from stageproof.train.metrics.intervals import LEAST_PATIENTS

FOLDS = 5
_STEEPEST = 1e3
_PRIOR = 0.25
"""Exponent of the determinant of the information matrix. Jeffreys' prior has 1/2, with which the slope is mean
unbiased; with 1/4 it is median unbiased (simulations: docs/statistics/calibration.md)."""


def study_evidence(probabilities: np.ndarray, patients: np.ndarray) -> np.ndarray:
    """(patients, classes) float64, mean evidence over the slices of each patient.

    probabilities: (N, classes) at temperature 1. patients: (N,) int64 from 0, each with at least one slice.
    """
    slices = evidence_of(probabilities)
    total = np.zeros((int(patients.max()) + 1, slices.shape[1]))
    np.add.at(total, patients, slices)
    return total / np.bincount(patients)[:, None]


def fittable(stage: np.ndarray) -> bool:
    """Whether there are enough patients: at least ten, with at least five in each of two classes.

    stage: (patients,) int64.
    """
    return len(stage) >= 2 * LEAST_PATIENTS and int((np.bincount(stage) >= LEAST_PATIENTS).sum()) >= 2


def fit_study(evidence: np.ndarray, stage: np.ndarray, weights: np.ndarray | None = None) -> StudyRule:
    """The study rule with maximum posterior density; a negative slope is set to 0.

    evidence: (patients, classes) float64. stage: (patients,) int64. weights: (patients,) float64 sample weights.
    """
    classes = evidence.shape[1]
    weights = np.ones(len(stage)) if weights is None else weights
    # Subtracting the mean over the classes does not change the probabilities, and improves the scaling.
    centred = evidence - evidence.mean(1, keepdims=True)
    scale = max(float(np.sqrt((centred**2).mean())), 1e-9)
    theta = fit_parameters(design_of(centred / scale), stage, weights)
    if theta[-1] <= 0:
        theta = np.append(fit_parameters(design_of(centred / scale)[:, :, :-1], stage, weights), 0.0)
    intercepts = np.append(theta[: classes - 1], 0.0)
    return StudyRule(tuple((intercepts - intercepts.mean()).tolist()), float(min(theta[-1] / scale, _STEEPEST)))


def cross_fit_study(evidence: np.ndarray, stage: np.ndarray, seed: int = 0) -> np.ndarray | None:
    """(patients, classes) float64: probabilities of each patient by a rule fitted on other patients; None if too few.

    In each fit, patients are weighted to the class shares of all patients. Otherwise leaving out a patient would lower
    the predicted prevalence of their own class.
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
    """(patients,) int64 from 0: random folds, stratified by class.

    stage: (patients,) int64.
    """
    drawn = np.random.default_rng(seed).permutation(len(stage))
    order = drawn[np.argsort(stage[drawn], kind="stable")]
    part = np.empty(len(stage), np.int64)
    part[order] = np.arange(len(stage)) % count
    return part


def design_of(evidence: np.ndarray) -> np.ndarray:
    """(patients, classes, parameters) design matrix: intercepts of all classes except the last, and the slope."""
    patients, classes = evidence.shape
    constant = np.broadcast_to(np.eye(classes)[:, :-1], (patients, classes, classes - 1))
    return np.concatenate([constant, evidence[:, :, None]], axis=2)


def fit_parameters(design: np.ndarray, stage: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(parameters,) float64 that maximise the likelihood times det(information) ** _PRIOR."""
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
