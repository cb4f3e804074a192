"""Temperature and threshold: found where they are known, and better on people they were not fitted on."""

from __future__ import annotations

import numpy as np
import pytest

from runtime.calibration import probabilities
from train.evaluation.calibration import choose_threshold, cross_fit, fit, fit_temperature, halves
from train.evaluation.scores import Answers, calibration_scores
from train.evaluation.summary import Summary


def people(patients: int, slices: int = 16, sharpness: float = 3.0, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Logits, labels and patients; labels are drawn from the softmax of logits / sharpness, one for each person."""
    rng = np.random.default_rng(seed)
    true = np.repeat(rng.normal(size=(patients, 4)) * 1.5, slices, 0)
    chances = probabilities(true[::slices])
    stage = np.array([rng.choice(4, p=row) for row in chances])
    return true * sharpness, np.repeat(stage, slices), np.repeat(np.arange(patients), slices)


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_the_temperature_that_was_planted_is_found(sharpness):
    logits, labels, _ = people(4000, slices=1, sharpness=sharpness)
    assert fit_temperature(logits, labels) == pytest.approx(sharpness, rel=0.06)


def test_no_other_temperature_is_likelier():
    logits, labels, _ = people(200)
    best = fit_temperature(logits, labels)

    def loss(temperature):
        return -np.log(probabilities(logits, temperature)[np.arange(len(labels)), labels]).mean()

    assert all(loss(best) < loss(best * factor) for factor in (0.5, 0.99, 1.01, 2))


def test_slices_that_do_not_tell_the_temperature_give_none():
    _, labels, _ = people(20)
    assert fit_temperature(np.eye(4)[labels], labels) is None  # every slice right: the surer the better
    assert fit_temperature(np.eye(4)[(labels + 1) % 4] * 9, labels) is None  # every slice wrong


def test_calibration_error_falls_on_people_who_were_not_fitted_on():
    logits, labels, patients = people(600, slices=4)
    crossed = cross_fit(logits, labels, patients, None)
    before = Answers(probabilities(logits), labels, patients)
    after = Answers(crossed.probabilities, labels, patients)
    change = Summary(after).change(before)
    assert change["ece"]["high"] < 0
    assert change["nll"]["high"] < 0
    assert change["brier"]["high"] < 0
    assert (after.decisions == before.decisions).all()


def test_cross_fitting_never_shows_a_patient_to_its_own_fit():
    logits, labels, patients = people(40)
    crossed = cross_fit(logits, labels, patients, None)
    for half in (0, 1):
        rows = crossed.half == half
        other = fit_temperature(logits[~rows], labels[~rows])
        assert np.allclose(crossed.probabilities[rows], probabilities(logits[rows], other))
    assert not set(patients[crossed.half == 0]) & set(patients[crossed.half == 1])


def test_the_halves_share_every_class_evenly():
    labels, patients = np.repeat([0, 0, 0, 0, 0, 1, 1, 2, 2, 2], 4), np.repeat(np.arange(10), 4)
    side = halves(labels, patients, seed=3)
    stage = labels[::4]
    for label in range(3):
        ones = int(side[stage == label].sum())
        assert abs(2 * ones - int((stage == label).sum())) <= 1
    assert not np.array_equal(side, halves(labels, patients, seed=4))


def test_too_few_people_are_not_cross_fitted():
    assert cross_fit(*people(9), None) is None
    assert cross_fit(*people(10), None) is not None


def test_a_threshold_keeps_the_risk_and_answers_as_much_as_it_can():
    logits, labels, patients = people(300, seed=2)
    chances = probabilities(logits, 3.0)
    confidence, wrong = chances.max(1), chances.argmax(1) != labels
    for risk in (0.1, 0.2, 0.3):
        threshold = choose_threshold(chances, labels, patients, risk)
        assert wrong[confidence >= threshold].mean() <= risk
        lower = np.unique(confidence[confidence < threshold])
        assert all(wrong[confidence >= one].mean() > risk for one in lower)


def test_thresholds_at_the_ends():
    logits, labels, patients = people(50)
    chances = probabilities(logits)
    assert choose_threshold(chances, labels, patients, 0.99) == 0
    assert choose_threshold(chances, (chances.argmax(1) + 1) % 4, patients, 0.5) is None
    sure = np.eye(4)[labels]
    assert choose_threshold(sure, labels, patients, 0.02) == 0
    few = np.where(patients < 3, labels, (labels + 1) % 4)  # right about three people only
    assert choose_threshold(np.eye(4)[few] * 0.9 + 0.025, labels, patients, 0.2) is None


def test_a_small_risk_needs_many_people():
    labels, patients = np.zeros(12, int), np.arange(12)
    right = np.tile([0.7, 0.1, 0.1, 0.1], (12, 1))
    assert choose_threshold(right, labels, patients, 0.1) == 0
    assert choose_threshold(right, labels, patients, 0.05) is None  # one in twenty cannot be told from twelve


def test_what_is_chosen_on_some_people_keeps_the_risk_on_others_roughly():
    logits, labels, patients = people(1200, slices=4, seed=5)
    crossed = cross_fit(logits, labels, patients, 0.2)
    wrong = crossed.probabilities.argmax(1) != labels
    assert wrong[crossed.answered].mean() == pytest.approx(0.2, abs=0.05)
    assert 0.2 < crossed.answered.mean() < 1
    stored = fit(logits, labels, patients, 0.2)
    assert stored.abstain_below == pytest.approx(np.mean([one.abstain_below for one in crossed.fits]), abs=0.1)


def test_ece_is_none_for_the_calibrated():
    logits, labels, _ = people(20_000, slices=1, sharpness=1)
    answers = Answers(probabilities(logits), labels, np.arange(len(labels)))
    assert calibration_scores(answers, np.ones((1, len(labels))))["ece"][0] < 0.015
