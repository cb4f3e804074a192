"""Figures against scikit-learn, intervals against cases whose answer is known, and what is not estimable."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from runtime.calibration import probabilities
from runtime.labels import LABELS
from train.evaluation.bootstrap import draw_patients, exact_interval, interval
from train.evaluation.scores import Answers, calibration_scores, decision_scores, ranking_scores, risk_at
from train.evaluation.summary import Summary

ALL = [0, 1, 2, 3]


def people(counts: tuple[int, ...] = (16, 11, 6, 5), slices: int = 8, seed: int = 0, skill: float = 1.5) -> Answers:
    """Slices of so many people of each class, answered with as much skill, alike within a person."""
    rng = np.random.default_rng(seed)
    stage = np.repeat(np.arange(4), counts)
    patients = np.repeat(np.arange(len(stage)), slices)
    labels = stage[patients]
    logits = rng.normal(size=(len(labels), 4)) + rng.normal(size=(len(stage), 4))[patients]
    logits[np.arange(len(labels)), labels] += skill
    return Answers(probabilities(np.round(logits, 1)), labels, patients)  # rounded: there are ties


def once(answers: Answers) -> np.ndarray:
    """The weighting that is the data itself."""
    return np.ones((1, int(answers.patients.max()) + 1))


def of_sklearn(answers: Answers) -> dict[str, float]:
    truth, said, chances = answers.labels, answers.decisions, answers.probabilities
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(truth, said, labels=ALL)
    found = {
        "accuracy": metrics.accuracy_score(truth, said),
        "balanced_accuracy": metrics.balanced_accuracy_score(truth, said),
        "kappa": metrics.cohen_kappa_score(truth, said, weights="quadratic"),
        "macro_precision": precision.mean(),
        "macro_f1": f1.mean(),
        "macro_auc": metrics.roc_auc_score(truth, chances, multi_class="ovr"),
        "demented.accuracy": metrics.accuracy_score(truth > 0, said > 0),
        "demented.sensitivity": metrics.recall_score(truth > 0, said > 0),
        "demented.specificity": metrics.recall_score(truth == 0, said == 0),
        "demented.auc": metrics.roc_auc_score(truth > 0, 1 - chances[:, 0]),
    }
    for label, name in enumerate(LABELS):
        of_class = {
            "precision": precision[label],
            "recall": recall[label],
            "f1": f1[label],
            "specificity": metrics.recall_score(truth != label, said != label),
            "auc": metrics.roc_auc_score(truth == label, chances[:, label]),
        }
        found |= {f"classes.{name}.{key}": value for key, value in of_class.items()}
    return found


@pytest.mark.parametrize("seed", range(5))
def test_every_figure_is_scikit_learns(seed):
    answers = people(seed=seed)
    ours = decision_scores(answers, once(answers), ALL) | ranking_scores(answers, once(answers), ALL)
    theirs = of_sklearn(answers)
    assert set(ours) == set(theirs) | {"macro_specificity"}
    assert {name: ours[name][0] for name in theirs} == pytest.approx(theirs, abs=1e-12)


def test_a_resample_is_the_data_with_patients_repeated():
    answers = people(seed=7)
    weights = draw_patients(38, 20, seed=1)
    assert (weights.sum(1) == 38).all()
    drawn = decision_scores(answers, weights, ALL) | ranking_scores(answers, weights, ALL)
    calibrated = calibration_scores(answers, weights)
    for row in range(20):
        rows = np.concatenate(
            [np.flatnonzero(answers.patients == p) for p in range(38) for _ in range(int(weights[row, p]))]
        )
        again = Answers(answers.probabilities[rows], answers.labels[rows], np.zeros(len(rows), np.int64))
        if len(np.unique(again.labels)) < 4:
            continue
        assert {name: drawn[name][row] for name in of_sklearn(again)} == pytest.approx(of_sklearn(again), abs=1e-12)
        expected = calibration_scores(again, once(again))
        assert {name: values[row] for name, values in calibrated.items()} == pytest.approx(
            {name: values[0] for name, values in expected.items()}, abs=1e-12
        )


def test_calibration_figures_by_hand():
    chances = np.array([[0.9, 0.1, 0, 0], [0.9, 0.1, 0, 0], [0.3, 0.5, 0.1, 0.1], [0.25, 0.25, 0.25, 0.25]])
    answers = Answers(chances, np.array([0, 1, 1, 3]), np.arange(4))
    found = calibration_scores(answers, np.ones((1, 4)))
    assert found["ece"][0] == pytest.approx((abs(1 - 1.8) + 0.5 + 0.25) / 4)
    assert found["nll"][0] == pytest.approx(-np.log([0.9, 0.1, 0.5, 0.25]).mean())
    assert found["brier"][0] == pytest.approx((0.02 + (0.81 + 0.81) + 0.36 + 0.75) / 4)


def test_risk_and_coverage_by_hand():
    sure = np.array([0.9, 0.8, 0.7, 0.6])
    answers = Answers(np.column_stack([sure, 1 - sure, 0 * sure, 0 * sure]), np.array([0, 1, 0, 1]), np.arange(4))
    risk, area = risk_at(answers, np.ones((1, 4)), np.array([0.25, 0.5, 0.75, 1]))
    assert risk[0] == pytest.approx([0, 1 / 2, 1 / 3, 1 / 2])
    assert area[0] == pytest.approx(risk[0].mean())
    twice, _ = risk_at(answers, np.array([[0, 2, 1, 1.0]]), np.array([0.5, 1]))
    assert twice[0] == pytest.approx([1, 3 / 4])


def test_a_patient_is_the_mean_over_the_slices():
    answers = Answers(
        np.array([[1, 0, 0, 0], [0.4, 0.6, 0, 0], [0, 0, 1, 0]], float), np.array([0, 0, 2]), np.array([0, 0, 1])
    )
    whole = answers.by_patient()
    assert np.allclose(whole.probabilities, [[0.7, 0.3, 0, 0], [0, 0, 1, 0]])
    assert whole.labels.tolist() == [0, 2]


def test_few_patients_give_no_figure_instead_of_zero_or_one():
    answers = people((16, 11, 5, 2))
    summary = Summary(answers, draw_patients(34))
    figures = summary.decisions()
    assert figures["counted"] == list(LABELS[:3])
    assert figures["chance"] == pytest.approx(1 / 3)
    for name in ("precision", "recall", "f1", "auc"):
        figure = figures["classes"]["ModerateDemented"][name]
        assert figure["value"] is figure["low"] is figure["high"] is None
        assert figure["why"] == "not estimable: 2 patients, fewer than 5"
        assert figures["classes"]["MildDemented"][name]["patients"] == 5
    assert figures["classes"]["ModerateDemented"]["specificity"]["patients"] == 32
    recalls = [figures["classes"][label]["recall"]["value"] for label in LABELS[:3]]
    assert figures["balanced_accuracy"]["value"] == pytest.approx(np.mean(recalls))


def test_what_never_varies_gets_the_exact_interval_of_so_many_patients_or_none():
    right = Answers(np.eye(4)[np.repeat([0, 1], 8)], np.repeat([0, 1], 8), np.arange(16))
    figures = Summary(right, draw_patients(16)).decisions()
    assert figures["accuracy"]["value"] == figures["accuracy"]["high"] == 1
    assert figures["accuracy"]["low"] == pytest.approx(0.025 ** (1 / 16))
    assert figures["classes"]["NonDemented"]["recall"]["low"] == pytest.approx(0.025 ** (1 / 8))
    assert figures["kappa"]["value"] == 1
    assert figures["kappa"]["low"] is None
    assert "resamples agree" in figures["kappa"]["why"]
    assert exact_interval(0, 5) == pytest.approx((0, 1 - 0.025 ** (1 / 5)))


def test_a_class_that_is_never_answered_has_no_precision():
    answers = people((8, 8, 8, 8))
    chances = answers.probabilities.copy()
    chances[:, 2] = 0
    figures = Summary(Answers(chances, answers.labels, answers.patients), draw_patients(32)).decisions()
    assert figures["classes"]["MildDemented"]["precision"]["why"] == "not estimable: never answered"
    assert figures["macro"]["precision"]["value"] is None
    assert figures["classes"]["MildDemented"]["recall"]["value"] == 0
    assert figures["classes"]["MildDemented"]["recall"]["high"] > 0.3


def test_unknown_patients_give_figures_without_intervals():
    answers = people((16, 11, 6, 5))
    unknown = Summary(Answers(answers.probabilities, answers.labels, np.arange(len(answers.labels))), None).decisions()
    known = Summary(answers, draw_patients(38)).decisions()
    for path in ("accuracy", "kappa", "balanced_accuracy"):
        assert unknown[path]["value"] == pytest.approx(known[path]["value"], abs=1e-12)
        assert unknown[path]["low"] is unknown[path]["patients"] is None
        assert known[path]["low"] < known[path]["value"] < known[path]["high"]


def test_an_interval_over_slices_would_be_far_too_narrow():
    """What the patients are drawn for: eight slices of a person are not eight times the evidence."""
    answers = people((20, 20, 20, 20))
    patients = Summary(answers, draw_patients(80)).decisions()["accuracy"]
    alone = Answers(answers.probabilities, answers.labels, np.arange(len(answers.labels)))
    slices = Summary(alone, draw_patients(len(answers.labels))).decisions()["accuracy"]
    assert patients["high"] - patients["low"] > 1.5 * (slices["high"] - slices["low"])


def covered(simulate, score, truth: float, patients: int, times: int, resamples: int = 1000) -> float:
    """Share of simulated data sets whose interval holds the truth."""
    held = 0
    for seed in range(times):
        answers = simulate(np.random.default_rng(seed))
        found = interval(score(answers, draw_patients(patients, resamples, seed)), patients)
        assert found is not None
        held += found[0] <= truth <= found[1]
    return held / times


def one_of_two(rng: np.random.Generator, patients: int, slices: int = 32) -> Answers:
    """Slices of people whose share of right answers is drawn from Beta(2, 1.2): on the whole 62.5 %."""
    skill = np.repeat(rng.beta(2, 1.2, patients), slices)
    right = rng.random(len(skill)) < skill
    labels = np.repeat(np.arange(patients) % 2, slices)
    said = np.where(right, labels, 1 - labels)
    return Answers(np.eye(4)[said] * 0.8 + 0.05, labels, np.repeat(np.arange(patients), slices))


def test_intervals_hold_the_truth_as_often_as_they_say():
    share = covered(
        lambda rng: one_of_two(rng, 32),
        lambda answers, weights: (weights @ answers.tally(1.0 * (answers.decisions == answers.labels))) / 32 / 32,
        2 / 3.2,
        32,
        times=600,
    )
    assert 0.90 <= share <= 0.98


@pytest.mark.slow
@pytest.mark.parametrize("patients", [12, 32, 100])
def test_coverage_of_accuracy(patients):
    def score(answers, weights):
        return decision_scores(answers, weights, [0, 1])["accuracy"]

    assert 0.90 <= covered(lambda rng: one_of_two(rng, patients), score, 2 / 3.2, patients, times=400) <= 0.98


def ranked(rng: np.random.Generator, counts: tuple[int, ...], slices: int = 16) -> Answers:
    """Slices whose evidence for each class is normal: it varies by person and by slice, 1.5 higher for its own."""
    stage = np.repeat(np.arange(len(counts)), counts)
    patients = np.repeat(np.arange(len(stage)), slices)
    logits = rng.normal(size=(len(patients), 4)) + rng.normal(size=(len(stage), 4))[patients]
    logits[np.arange(len(patients)), stage[patients]] += 1.5
    return Answers(probabilities(logits), stage[patients], patients)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["demented.auc", "kappa", "balanced_accuracy", "classes.VeryMildDemented.recall"])
def test_coverage_of_other_figures(name):
    def score(answers, weights):
        both = ranking_scores if name.endswith("auc") else decision_scores
        return both(answers, weights, [0, 1, 2])[name]

    counts = (16, 10, 8)
    many = ranked(np.random.default_rng(0), tuple(400 * count for count in counts), slices=16)
    truth = float(score(many, once(many))[0])
    assert 0.90 <= covered(lambda rng: ranked(rng, counts), score, truth, sum(counts), times=300, resamples=600) <= 0.98


def test_the_expanded_interval_is_students():
    """Where the bootstrap distribution is normal, as it is here, the ends are those of the t interval."""
    values = stats.norm.ppf((np.arange(100_000) + 0.5) / 100_000)
    low, high = interval(values, 12)
    width = np.sqrt(12 / 11) * stats.t.ppf(0.975, 11)  # the bootstrap's own deviation is too small by that root
    assert (low, high) == pytest.approx((-width, width), rel=1e-3)


def test_absent_classes_warn_nobody():
    answers = people((6, 6, 6, 0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures = Summary(answers, draw_patients(18)).decisions()
    assert figures["classes"]["ModerateDemented"]["recall"]["value"] is None
