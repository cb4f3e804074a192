"""`recalibration_slope`: the calibration slope for several classes. `jackknife`: its interval, and that of others."""

from __future__ import annotations

from typing import Any

import numpy as np

from stageproof.runtime.softmax import probabilities
from stageproof.train.calibration.study_fit import design_of, fit_parameters
from stageproof.train.metrics.intervals import LEVEL


def recalibration_slope(evidence: np.ndarray, labels: np.ndarray, patients: np.ndarray) -> dict[str, Any]:
    """Slope of multinomial recalibration with free intercepts (van Hoorde et al. 2014), with an interval.

    1 if calibrated, below 1 if probabilities are too extreme. The t interval has the standard error of a
    delete-one-patient jackknife, one Newton step for each patient.

    evidence: (N, classes) log-probabilities. labels, patients: (N,) int64.
    """
    people, classes = int(patients.max()) + 1, evidence.shape[1]
    held = np.unique(labels)
    none = {"value": None, "low": None, "high": None, "patients": people}
    if len(held) < 2:
        return {**none, "why": "not estimable: all patients have the same class"}
    present = np.flatnonzero(np.isin(np.arange(classes), held))  # only the classes of these patients
    evidence, labels = evidence[:, present], np.searchsorted(present, labels)
    design = design_of(evidence - evidence.mean(1, keepdims=True))
    if np.abs(design[:, :, -1]).max() < 1e-9:
        return {**none, "why": "not estimable: all probabilities are equal"}
    theta = fit_parameters(design, labels, np.ones(len(labels)))
    gradient, second = _by_patient(design, labels, patients, theta, people)
    whole = second.sum(0)
    try:
        steps = np.linalg.solve(whole - second, gradient[:, :, None])[:, -1, 0]
    except np.linalg.LinAlgError:
        return {**none, "value": float(theta[-1]), "why": "no interval: singular without one of the patients"}
    return jackknife(theta[-1], steps, people)


def jackknife(value: float, left_out: np.ndarray, patients: int) -> dict[str, Any]:
    """`value` with a t interval from the delete-one-patient jackknife (Efron 1982).

    left_out: (patients,) float64, the value without each patient, up to a constant.
    """
    from scipy.stats import t

    error = float(np.sqrt((patients - 1) / patients * ((left_out - left_out.mean()) ** 2).sum()))
    reach = float(t.ppf((1 + LEVEL) / 2, patients - 1)) * error
    return {"value": float(value), "low": float(value) - reach, "high": float(value) + reach, "patients": patients}


def _by_patient(
    design: np.ndarray, labels: np.ndarray, patients: np.ndarray, theta: np.ndarray, people: int
) -> tuple[np.ndarray, np.ndarray]:
    """(people, parameters) gradients and (people, parameters, parameters) Hessians of the negative log-likelihood."""
    chances = probabilities(design @ theta)
    mean = np.einsum("nk,nkp->np", chances, design)
    apart = design - mean[:, None]
    gradient = np.zeros((people, design.shape[2]))
    np.add.at(gradient, patients, mean - design[np.arange(len(labels)), labels])
    second = np.zeros((people, design.shape[2], design.shape[2]))
    np.add.at(second, patients, np.einsum("nk,nkp,nkq->npq", chances, apart, apart))
    return gradient, second
