"""Tests and measures of calibration, compared with their distribution under perfect calibration.

The sampling unit is the patient. The null distribution is that of consistency resampling (Bröcker and Smith 2007):
stages are drawn from the predicted probabilities. All slices of a patient have the same stage, so for slices it is
drawn from the probabilities of the patient, and patients are resampled as well, because the evidence in their slices is
random too. A single test decides whether miscalibration is declared, at a level of 5 %: its statistic is the largest
standardised deviation over the points of the smoothed calibration curve and the calibration in the large of the classes
(van Calster et al. 2019).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from stageproof.runtime.labels import LabelSet
from stageproof.runtime.study import evidence_of
from stageproof.train.calibration.slope import jackknife, recalibration_slope
from stageproof.train.metrics.classification import BINS, Answers, bin_of, losses, stages
from stageproof.train.metrics.intervals import LEAST_PATIENTS, LEVEL
from stageproof.train.metrics.intervals import jackknife as interval

DRAWS = 500
POINTS = 21
LEAST = 2 * LEAST_PATIENTS
"""Minimum number of patients to assess calibration."""
_ALMOST_ONE = 1 - 1e-6
_FAR_OUT = 0.0015
"""One-sided tail probability of each point at which the largest of about 20 dependent points has 5 %."""


@dataclass(frozen=True)
class _Sums:
    """Deviations summed over the slices of each patient. The value of a column is their total over that of `count`."""

    observed: np.ndarray
    """(patients, columns), with the true stages."""
    by_stage: np.ndarray
    """(patients, classes, columns), for each class that the patient could have."""
    count: np.ndarray
    """(patients, columns), sum of the weights."""

    def of(self, columns: np.ndarray) -> _Sums:
        """Only the given columns."""
        return _Sums(self.observed[:, columns], self.by_stage[:, :, columns], self.count[:, columns])


def assess(answers: Answers, stage_chances: np.ndarray | None = None, seed: int = 0) -> dict[str, Any]:
    """The calibration of `answers` as in `evaluation.json`; JSON-serialisable.

    stage_chances: (patients, classes) float64, for slices: probabilities of the stage of each patient, from a fit on
        other patients; None if `answers` has one prediction for each patient, whose probabilities are then used.
    """
    patients = int(answers.patients.max()) + 1
    if patients < LEAST:
        return {"patients": patients, "why": f"not estimable: {patients} patients, fewer than {LEAST}"}
    return {
        **against_chance(answers, stage_chances, seed),
        "in_the_large": _shares(_in_the_large(answers), answers.classes, patients),
        "slope": _slope(answers, patients),
        "skill": _skill(answers, patients),
    }


def against_chance(answers: Answers, stage_chances: np.ndarray | None, seed: int = 0) -> dict[str, Any]:
    """The part of `assess` with a null distribution: test, smoothed curve and debiased ECE."""
    patients = int(answers.patients.max()) + 1
    # The log-odds at which the curve is evaluated: quantiles of the confidences.
    at = np.quantile(_log_odds(answers.confidence), np.linspace(0.02, 0.98, POINTS))
    weights = _kernel(answers.confidence, at, patients)
    curve = _sums(answers, weights)
    known = curve.count.sum(0) ** 2 / np.maximum((curve.count**2).sum(0), 1e-300) >= LEAST_PATIENTS
    large = _in_the_large(answers)
    if stage_chances is not None:  # an approximate null distribution, too narrow if few errors are expected
        wrong = _membership(answers.patients) @ (weights * (1 - answers.confidence)[:, None])
        known &= wrong.sum(0) / curve.count.max(0) >= LEAST_PATIENTS
        large = large.of(np.flatnonzero(answers.probabilities.mean(0) * patients >= LEAST))
    curve = curve.of(np.flatnonzero(known))
    binned = _sums(answers, np.eye(BINS)[bin_of(answers.confidence)])
    null = _Null(answers.probabilities if stage_chances is None else stage_chances, stage_chances is not None, seed)
    found, draws = np.append(_ratio(curve), _ratio(large)), np.hstack([null.ratios(curve), null.ratios(large)])
    if not len(found):
        return {"patients": patients, "miscalibration": None, "curve": [], "ece": _ece(binned, null, patients)}
    spread = np.maximum(draws.std(0), 1e-9)
    worst, worsts = float((np.abs(found) / spread).max()), (np.abs(draws) / spread).max(1)
    p = float((1 + (worsts >= worst - 1e-12).sum()) / (1 + DRAWS))
    reach = np.quantile(worsts, LEVEL) * spread
    sure = (weights[:, known] * answers.confidence[:, None]).sum(0) / weights[:, known].sum(0)
    points = [
        {"predicted": one, "observed": one + off, "low": max(0.0, one - wide), "high": min(1.0, one + wide)}
        for one, off, wide in zip(sure.tolist(), found.tolist(), reach.tolist(), strict=False)
    ]
    return {
        "patients": patients,
        "miscalibration": {"p": p, "declared": p <= 1 - LEVEL, "draws": DRAWS},
        "curve": points,
        "ece": _ece(binned, null, patients),
    }


class _Null:
    """Draws from the null distribution. chances: (patients, classes) probabilities of the stages.

    again: whether to resample patients as well.
    """

    def __init__(self, chances: np.ndarray, again: bool, seed: int) -> None:
        rng = np.random.default_rng(seed)
        patients, classes = chances.shape
        drawn = (rng.random((DRAWS, patients, 1)) > np.cumsum(chances, 1)[:, :-1]).sum(2)
        self._chances = chances
        self._stages = np.zeros((DRAWS, patients, classes))
        np.put_along_axis(self._stages, drawn[:, :, None], 1.0, 2)
        self._others = None
        if again:
            times = rng.multinomial(patients, np.full(patients, 1 / patients), size=DRAWS)
            # Corrects the variance of resampling n of n, which is too small by the factor (n - 1) / n.
            self._others = (times - 1) * np.sqrt(patients / (patients - 1))

    def totals(self, sums: _Sums, *, widened: bool = False) -> np.ndarray:
        """(DRAWS, columns) total deviations from their expectation.

        widened: for tests; scaled as Student's t is wider than the normal if few patients contribute to a column.
        """
        columns = sums.count.shape[1]
        totals: np.ndarray = self._stages.reshape(DRAWS, -1) @ sums.by_stage.reshape(self._stages[0].size, columns)
        if self._others is not None:
            # Given the evidence, the expected deviation of studies is 0; that of slices depends on the evidence.
            expected = np.einsum("nk,nkc->nc", self._chances, sums.by_stage)
            apart = expected - sums.count * expected.sum(0) / np.maximum(sums.count.sum(0), 1e-300)
            if widened:  # a patient with much of the weight of a column shifts its mean (correction as in HC3)
                apart = apart / (1 - np.minimum(sums.count / np.maximum(sums.count.sum(0), 1e-300), 0.5))
                apart = apart * _student(apart)
            totals += self._others @ apart - expected.sum(0)
        return totals

    def ratios(self, sums: _Sums) -> np.ndarray:
        """(DRAWS, columns) float64, for tests."""
        return self.totals(sums, widened=True) / np.maximum(sums.count.sum(0), 1e-300)


def _student(apart: np.ndarray) -> np.ndarray:
    """(columns,) ratio of the quantiles of Student's t and the normal distribution, far out in the tail.

    apart: (patients, columns) deviations. Their fourth powers determine the effective number of patients.
    """
    from scipy.stats import norm, t

    worth = (apart**2).sum(0) ** 2 / np.maximum((apart**4).sum(0), 1e-300)
    return t.isf(_FAR_OUT, np.maximum(worth - 1, 2)) / norm.isf(_FAR_OUT)


def _log_odds(confidence: np.ndarray) -> np.ndarray:
    sure = np.minimum(confidence, _ALMOST_ONE)
    return np.log(sure / (1 - sure))


def _kernel(confidence: np.ndarray, at: np.ndarray, patients: int) -> np.ndarray:
    """(N, POINTS) Gaussian kernel weights on the log-odds; bandwidth for the number of patients by Silverman (1986)."""
    odds = _log_odds(confidence)
    width = max(1.06 * float(odds.std()) * patients ** (-1 / 5), 1e-3)
    return np.exp(-0.5 * ((odds[:, None] - at) / width) ** 2)


def _sums(answers: Answers, weights: np.ndarray) -> _Sums:
    """Weighted sums of (correct − confidence). weights: (N, columns)."""
    each = [(answers.decisions == stage) - answers.confidence for stage in range(len(answers.classes))]
    right = (answers.decisions == answers.labels) - answers.confidence
    people = _membership(answers.patients)
    return _Sums(
        people @ (weights * right[:, None]),
        np.stack([people @ (weights * one[:, None]) for one in each], 1),
        people @ weights,
    )


def _membership(patients: np.ndarray) -> Any:
    """(patients, N) sparse matrix that sums over the slices of each patient."""
    from scipy.sparse import csr_matrix

    return csr_matrix((np.ones(len(patients)), (patients, np.arange(len(patients)))))


def _in_the_large(answers: Answers) -> _Sums:
    """Observed minus predicted frequency, one column for each class."""
    one = np.eye(len(answers.classes))
    count = answers.tally(np.ones((len(answers.labels), 1)))
    predicted = answers.tally(answers.probabilities)
    by_stage = one[None] * count[:, None] - predicted[:, None]
    return _Sums(answers.tally(one[answers.labels]) - predicted, by_stage, np.repeat(count, len(one), 1))


def _ratio(sums: _Sums) -> np.ndarray:
    return sums.observed.sum(0) / np.maximum(sums.count.sum(0), 1e-300)


def _slope(answers: Answers, patients: int) -> dict[str, Any]:
    wrong = float((answers.tally(1 - answers.confidence) / answers.tally(np.ones(len(answers.labels)))).sum())
    if wrong < LEAST_PATIENTS:
        why = f"not estimable: {wrong:.1f} of {patients} patients expected to be wrong, fewer than {LEAST_PATIENTS}"
        return {"value": None, "low": None, "high": None, "patients": patients, "why": why}
    return recalibration_slope(evidence_of(answers.probabilities), answers.labels, answers.patients)


def _ece(sums: _Sums, null: _Null, patients: int) -> dict[str, Any]:
    """Debiased ECE: expected calibration error minus its mean under perfect calibration, with the band under it."""
    total = float(sums.count.sum())
    raw = float(np.abs(sums.observed.sum(0)).sum()) / total
    draws = np.abs(null.totals(sums)).sum(1) / total
    expected, ends = float(draws.mean()), np.quantile(draws - draws.mean(), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return {
        "value": raw - expected,
        "raw": raw,
        "expected": expected,
        "null_low": float(ends[0]),
        "null_high": float(ends[1]),
        "patients": patients,
    }


def _shares(sums: _Sums, classes: LabelSet, patients: int) -> dict[str, Any]:
    """Predicted minus observed share of each class, and of all positive classes, with intervals over patients."""
    deviations = -np.hstack([sums.observed, sums.observed[:, classes.is_positive].sum(1, keepdims=True)])
    counts = np.hstack([sums.count, sums.count[:, :1]])
    total, count = deviations.sum(0), counts.sum(0)
    value, left_out = total / count, (total - deviations) / (count - counts)
    *found, positive = (jackknife(value[at], left_out[:, at], patients) for at in range(len(classes) + 1))
    return {"classes": dict(zip(classes.names, found, strict=True)), "positive": positive}


def _skill(answers: Answers, patients: int) -> dict[str, Any]:
    """Skill scores: 1 − score / score of the prevalence among the other patients; 0: no better than the prevalence."""
    classes = len(answers.classes)
    share = np.eye(classes)[stages(answers.labels, answers.patients)]
    others = (share.sum(0) - share + 1 / classes) / patients  # plus one patient of uniform prior, so that none is 0
    model, constant = (losses(one, answers.labels) for one in (answers.probabilities, others[answers.patients]))
    found = {}
    for name in model:
        mine, base = answers.tally(model[name]), answers.tally(constant[name])
        found[name] = _skill_score(mine, base)
    return found


def _skill_score(mine: np.ndarray, base: np.ndarray) -> dict[str, Any]:
    """1 − Σ mine / Σ base, with an interval on the log scale of the ratio, so that it does not exceed 1.

    mine, base: (patients,) float64 sums of losses.
    """
    patients, ratio = len(mine), mine.sum() / base.sum()
    figure = {"value": float(1 - ratio), "low": None, "high": None, "patients": patients}
    if not ratio > 0:
        return {**figure, "why": "interval not estimable: no prediction has a loss"}
    left_out = (mine.sum() - mine) / (base.sum() - base)
    ends = interval(np.array([ratio, *left_out]), patients, limits=(0.0, float("inf")))
    if ends is None:
        return {**figure, "why": "interval not estimable: leaving out any patient does not change the value"}
    return {**figure, "low": float(1 - ends[1]), "high": float(1 - ends[0])}
