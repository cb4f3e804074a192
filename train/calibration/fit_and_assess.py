"""Fits temperature, study rule and thresholds on held-out patients, and assesses calibration and abstention."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from stageproof.runtime.errors import TrainingError
from stageproof.runtime.labels import LabelSet
from stageproof.train.calibration.abstention import CONFIDENCE, Certified
from stageproof.train.calibration.fit import CrossFit, Fit, Guarantee, certify, cross_fit, fit
from stageproof.train.calibration.miscalibration import assess
from stageproof.train.metrics.classification import Answers
from stageproof.train.metrics.with_intervals import Summary
from stageproof.train.test_set.held_out import HeldOut


def fit_held_out(
    held: HeldOut, logits: np.ndarray, labels: np.ndarray, patients: np.ndarray, risk: float | None, seed: int
) -> tuple[Fit | None, CrossFit | None, Guarantee | None]:
    """The fit to store in the run, its cross-fitted counterpart for evaluation, and the certified thresholds.

    All None if patients are unknown, in the training set, or not those that the run held out. The last is None without
    `risk`. Raises TrainingError if no threshold for `risk` can be certified for slices or for studies. If only one can,
    the model always abstains for the other.
    """
    # Predictions for training patients are more confident than those for others, which would bias the fit.
    if not held.own or held.leaked is None or held.leaked:
        return None, None, None
    crossed = cross_fit(logits, labels, patients, seed)
    if risk is None:
        return fit(logits, labels, patients if held.unit == "patients" else None), crossed, None
    guarantee = certify(logits, labels, patients, risk, seed)
    if guarantee.slices.threshold is None and guarantee.studies.threshold is None:
        raise TrainingError(_no_threshold(risk, len(guarantee.fitted), guarantee))
    return guarantee.fit, crossed, guarantee


def _no_threshold(risk: float, patients: int, guarantee: Guarantee) -> str:
    kinds = [("slices", guarantee.slices), ("studies", guarantee.studies)]
    reasons = "; ".join(f"for {name} {_why(one)}" for name, one in kinds)
    return (
        f"No abstention threshold can be certified for a risk of {risk:.1%} with {CONFIDENCE:.0%} confidence: "
        f"{reasons}. The run held out {patients} patients, of whom {int(guarantee.fitted.sum())} are needed for the "
        "calibration. Hold out more patients, give a larger --target-risk, or train longer; nothing was written."
    )


def _why(one: Certified) -> str:
    if one.needed is None:
        return f"{one.why}, so no feasible number of patients is enough"
    return f"{one.why}; about {one.needed} held-out patients would be enough"


def studies_of(
    held: HeldOut, stored: Fit, crossed: CrossFit | None, logits: np.ndarray, slices: Answers
) -> tuple[Answers, str]:
    """One prediction for each patient, and its origin: ``cross-fitted``, ``stored`` or ``mean``.

    stored: the fit stored in the run, used for external data. slices: the reported predictions of slices.
    """
    mean = slices.by_patient()
    if held.own:
        if crossed is not None and crossed.studies is not None:
            return replace(mean, probabilities=crossed.studies), "cross-fitted"
        return mean, "mean"
    found = stored.studies(logits, slices.labels, slices.patients, slices.classes)
    return (mean, "mean") if found is None else (found, "stored")


def assessed(before: Answers, after: Answers | None, studies: Answers | None, seed: int) -> dict[str, Any] | None:
    """Calibration of slices before and after temperature scaling, and of studies; None if patients are unknown."""
    if studies is None:
        return None
    return {
        "before": assess(before, studies.probabilities, seed),
        "after": None if after is None else assess(after, studies.probabilities, seed),
        "patients": assess(studies, None, seed),
    }


def debiased(figures: dict[str, Any] | None, assessment: dict[str, Any] | None, why: str) -> dict[str, Any] | None:
    """`Summary.calibration` or `.change` with the raw ECE replaced by the debiased ECE and its null band.

    assessment: of the same predictions; None if there is none, with the reason `why`.
    """
    if figures is None:
        return None
    none = {"value": None, "low": None, "high": None, "patients": figures["ece"].get("patients")}
    if assessment is None or "ece" not in assessment:
        return {**figures, "ece": {**none, "why": why if assessment is None else assessment["why"]}}
    ece = assessment["ece"]
    band = f"perfect calibration: {ece['null_low']:.3f} to {ece['null_high']:.3f}"
    return {**figures, "ece": {**none, **ece, "why": band}}


def abstention(
    guarantee: Guarantee, held: HeldOut, logits: np.ndarray, target: float, classes: LabelSet
) -> dict[str, Any]:
    """Thresholds, their certification, and coverage and risk on the certification patients; JSON-serialisable."""
    labels, patients = held.slices.labels, held.patients
    if patients is None or guarantee.fit.study is None:
        raise AssertionError("thresholds are only certified if patients are known")
    rest = ~guarantee.fitted
    slices = Summary(Answers(guarantee.fit.apply(logits), labels, patients, classes))
    found = guarantee.fit.studies(logits, labels, patients, classes)
    if found is None:
        raise AssertionError("a guarantee has a study rule")
    studies = Summary(found)
    kinds = [
        ("slices", slices, rest[patients], guarantee.fit.abstain_below, guarantee.slices),
        ("patients", studies, rest, guarantee.fit.study.abstain_below, guarantee.studies),
    ]
    facts: dict[str, Any] = {
        "target_risk": target,
        "confidence": CONFIDENCE,
        "abstain_below": guarantee.fit.abstain_below,
        "study_abstain_below": guarantee.fit.study.abstain_below,
        "fitted_on_patients": int(guarantee.fitted.sum()),
        "certified_on_patients": int(rest.sum()),
    }
    for name, level, among, least, certified in kinds:
        answered = among & (level.answers.confidence >= least)
        wrong = level.answers.decisions != level.answers.labels
        facts[name] = {
            "certified": certified.threshold is not None,
            "why": None if certified.threshold is not None else _why(certified),
            "coverage": level.share("coverage", answered, among),
            "risk": level.share("risk", wrong, answered),
        }
    return facts
