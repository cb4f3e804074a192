"""Calibration, study probabilities and abstention, simulated through the functions that `train.evaluate` calls.

The figures that these runs gave are in docs/statistics/calibration.md.
"""

from __future__ import annotations

import sys

import numpy as np
import pytest

from stageproof.runtime.labels import FOUR_STAGES
from stageproof.runtime.softmax import probabilities
from stageproof.train.calibration.fit import certify
from stageproof.train.calibration.miscalibration import against_chance
from stageproof.train.calibration.study_fit import fit_study, study_evidence
from stageproof.train.metrics.classification import Answers
from tests.train.simulated_people import CLASSES, PREVALENCE, draw, flat, posteriors

RUNS = 1000
pytestmark = pytest.mark.slow


def said(line: str) -> None:
    """Shown by pytest -s, for the table in the docs."""
    sys.stdout.write(f"\n{line}\n")


@pytest.mark.parametrize("icc", [0.17, 0.67, 0.97])
@pytest.mark.parametrize("people", [32, 160])
def test_perfect_calibration_is_rarely_declared_miscalibrated(people: int, icc: float) -> None:
    declared, errors = np.zeros(2), np.zeros(2)
    for run in range(RUNS):
        stage, scores = draw(np.random.default_rng((people, round(100 * icc), run)), people, icc)
        alone, together = posteriors(scores, icc)
        _, labels, patients = flat(scores, stage)
        slices = against_chance(Answers(alone, labels, patients, FOUR_STAGES), together, seed=run)
        studies = against_chance(Answers(together, stage, np.arange(people), FOUR_STAGES), None, seed=run)
        for at, one in enumerate((slices, studies)):
            declared[at] += bool(one["miscalibration"] and one["miscalibration"]["declared"])
            errors[at] += one["ece"]["value"]
    said(f"{people} people, ICC {icc}: declared {declared / RUNS}, debiased ECE {(errors / RUNS).round(4)}")
    assert (declared / RUNS <= 0.07).all()
    assert (np.abs(errors / RUNS) <= 0.01).all()


@pytest.mark.parametrize(("icc", "strength"), [(0.17, 0.6), (0.17, 1.0), (0.67, 1.5), (0.97, 1.5)])
def test_a_study_probability_fitted_on_160_people_is_calibrated(icc: float, strength: float) -> None:
    shift, many = np.array([0.8, 0.0, -0.5, -0.3]), 40_000  # the network favours the first class

    def evidence(scores: np.ndarray) -> np.ndarray:
        people, slices, _ = scores.shape
        chances = probabilities((scores * 3 * strength + shift).reshape(-1, CLASSES))
        return study_evidence(chances, np.repeat(np.arange(people), slices))

    stage, scores = draw(np.random.default_rng(1), many, icc, strength)
    everybody = evidence(scores)
    best = fit_study(everybody, stage).slope  # of the population: a fitted rule is recalibrated by best / slope
    some = everybody[:4000]
    weight = (PREVALENCE / (np.bincount(stage[:4000]) / 4000))[stage[:4000]]
    slopes, large = [], []
    for run in range(RUNS):
        stage, scores = draw(np.random.default_rng((160, round(100 * icc), run)), 160, icc, strength)
        rule = fit_study(evidence(scores), stage)
        slopes.append(best / rule.slope)
        large.append(np.average(rule.probabilities(some), axis=0, weights=weight) - PREVALENCE)
    middle, off = float(np.median(slopes)), np.median(large, axis=0)
    spread = np.quantile(slopes, [0.05, 0.95]).round(2)
    typical = np.median(np.abs(large), axis=0).round(3)
    said(f"ICC {icc}, strength {strength}: slope {middle:.3f} {spread}, large {off.round(4)}, one run {typical}")
    assert 0.95 <= middle <= 1.05
    assert (np.abs(off) <= 0.01).all()


@pytest.mark.parametrize("people", [16, 32, 160])
@pytest.mark.parametrize("icc", [0.17, 0.97])
@pytest.mark.parametrize("strength", [0.6, 1.5, 3.0])
def test_what_is_answered_keeps_the_target(people: int, icc: float, strength: float) -> None:
    stage, scores = draw(np.random.default_rng(1), 4000, icc, strength, slices=8)
    everybody, truth, _ = flat(scores, stage)
    wrong = everybody.argmax(1) != truth
    # Evidence of 32 slices, since it is of 32 that a study consists.
    stage, scores = draw(np.random.default_rng(2), 4000, icc, strength)
    logits, _, patients = flat(scores, stage)
    evidence = study_evidence(probabilities(logits), patients)
    for risk in (0.1, 0.2):
        broken, given, coverage = np.zeros(2), np.zeros(2), np.zeros(2)
        for run in range(RUNS):
            mine, scores = draw(np.random.default_rng((people, round(100 * icc), run)), people, icc, strength)
            found = certify(*flat(scores, mine), risk, seed=run)
            if found.slices.threshold is not None:
                sure = found.fit.apply(everybody).max(1) >= found.slices.threshold
                broken[0] += wrong[sure].mean() > risk
                given[0] += 1
                coverage[0] += sure.mean()
            if found.studies.threshold is not None and found.fit.study is not None:
                chances = found.fit.study.probabilities(evidence)
                sure = chances.max(1) >= found.studies.threshold
                broken[1] += (chances.argmax(1) != stage)[sure].mean() > risk
                given[1] += 1
                coverage[1] += sure.mean()
        answered = (coverage / np.maximum(given, 1)).round(2)
        case = f"{people} people, ICC {icc}, strength {strength}, target {risk}"
        said(f"{case}: exceeded {broken / RUNS}, certified {given / RUNS}, answers then {answered}")
        assert (broken / RUNS <= 0.05).all()
