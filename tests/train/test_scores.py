"""Figures against scikit-learn, cases whose answer is known, and what is not estimable."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from sklearn import metrics

from stageproof.runtime.labels import FOUR_STAGES, LABELS, LabelSet, label_set
from stageproof.runtime.softmax import probabilities
from stageproof.train.metrics.classification import (
    Answers,
    calibration_scores,
    decision_scores,
    ranking_scores,
    risk_at,
)
from stageproof.train.metrics.intervals import leave_one_out
from stageproof.train.metrics.with_intervals import Summary
from stageproof.train.reports.formatting import metric_rows, pick

ALL = [0, 1, 2, 3]
SETS = [
    label_set(["CN", "AD"]),
    label_set(["CN", "AD"], ["CN"]),
    label_set(["CN", "MCI", "AD"]),
    FOUR_STAGES,
    label_set(["CDR 0", "CDR 0.5", "CDR 1"]),
    label_set(["A", "precision", "positive", "classes.A", "macro", "auc", "G.f1"], ["precision", "positive", "auc"]),
]
"""Three classes whose positive one is the last; names with dots; names of metrics, and positives in the middle."""


def people(
    counts: tuple[int, ...] = (16, 11, 6, 5),
    slices: int = 8,
    seed: int = 0,
    skill: float = 1.5,
    classes: LabelSet = FOUR_STAGES,
) -> Answers:
    """Slices of so many people of each class, answered with as much skill, alike within a person."""
    rng = np.random.default_rng(seed)
    stage = np.repeat(np.arange(len(counts)), counts)
    patients = np.repeat(np.arange(len(stage)), slices)
    labels = stage[patients]
    logits = rng.normal(size=(len(labels), len(counts))) + rng.normal(size=(len(stage), len(counts)))[patients]
    logits[np.arange(len(labels)), labels] += skill
    return Answers(probabilities(np.round(logits, 1)), labels, patients, classes)  # rounded: there are ties


def once(answers: Answers) -> np.ndarray:
    """The weighting that is the data itself."""
    return np.ones((1, int(answers.patients.max()) + 1))


def of_sklearn(answers: Answers) -> dict[str, float]:
    truth, said, chances = answers.labels, answers.decisions, answers.probabilities
    every, names = range(len(answers.classes)), answers.classes.names
    positive = [at for at in every if names[at] in answers.classes.positive]
    ill, called = np.isin(truth, positive), np.isin(said, positive)
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(truth, said, labels=list(every))
    found = {
        "accuracy": metrics.accuracy_score(truth, said),
        "balanced_accuracy": metrics.balanced_accuracy_score(truth, said),
        "kappa": metrics.cohen_kappa_score(truth, said, weights="quadratic"),
        "macro_precision": precision.mean(),
        "macro_f1": f1.mean(),
        "macro_auc": np.mean([metrics.roc_auc_score(truth == at, chances[:, at]) for at in every]),
        "positive.accuracy": metrics.accuracy_score(ill, called),
        "positive.sensitivity": metrics.recall_score(ill, called),
        "positive.specificity": metrics.recall_score(~ill, ~called),
        "positive.auc": metrics.roc_auc_score(ill, answers.positive_probability),
    }
    assert np.allclose(answers.positive_probability, chances[:, positive].sum(1))
    for label, name in enumerate(names):
        of_class = {
            "precision": precision[label],
            "recall": recall[label],
            "f1": f1[label],
            "specificity": metrics.recall_score(truth != label, said != label),
            "auc": metrics.roc_auc_score(truth == label, chances[:, label]),
        }
        found |= {f"classes.{name}.{key}": value for key, value in of_class.items()}
    return found


@pytest.mark.parametrize("classes", SETS, ids=lambda classes: f"{len(classes)}-{classes.positive_name}")
@pytest.mark.parametrize("seed", range(3))
def test_every_figure_is_scikit_learns(seed, classes):
    answers = people((16, 11, 6, 5, 7, 9, 4)[: len(classes)], seed=seed, classes=classes)
    every = range(len(classes))
    ours = decision_scores(answers, once(answers), every) | ranking_scores(answers, once(answers), every)
    theirs = of_sklearn(answers)
    assert set(ours) == set(theirs) | {"macro_specificity"}
    assert {name: ours[name][0] for name in theirs} == pytest.approx(theirs, abs=1e-12)


def test_another_order_of_the_classes_changes_kappa_and_nothing_else_and_other_positives_the_two_way_figures_alone():
    classes = label_set(["A", "B", "C"])
    answers = people((12, 9, 8), classes=classes)
    order = [2, 0, 1]
    permuted = Answers(
        answers.probabilities[:, order],
        np.argsort(order)[answers.labels],
        answers.patients,
        label_set([classes.names[at] for at in order], classes.positive),
    )
    chosen = replace(answers, classes=label_set(classes.names, ["B"]))
    figures, others, two_way = (
        {path: one["value"] for path, one in leaves(Summary(each).decisions())} for each in (answers, permuted, chosen)
    )
    assert {path for path in figures if figures[path] != pytest.approx(others[path])} == {("kappa",)}
    assert {path for path in figures if figures[path] != two_way[path]} == {
        ("positive", name) for name in ("accuracy", "sensitivity", "specificity", "auc")
    }


def leaves(found: dict, path: tuple = ()) -> Iterator[tuple[tuple, dict]]:
    for key, value in found.items():
        if isinstance(value, dict) and "value" in value:
            yield (*path, key), value
        elif isinstance(value, dict):
            yield from leaves(value, (*path, key))


def test_of_two_classes_what_is_left_out_is_another_figure():
    answers = people((12, 9), classes=label_set(["CN", "AD"]))
    chances = np.random.default_rng(0).dirichlet((1, 1), len(answers.labels))  # without ties, which rounding may break
    answers = replace(answers, probabilities=chances)
    found, names = Summary(answers).decisions(), {path for _, path, _ in metric_rows(answers.classes)}
    same = {"macro.specificity": "balanced_accuracy", "macro.auc": "positive.auc", "positive.accuracy": "accuracy"}
    assert {path for _, path, _ in metric_rows(FOUR_STAGES)} - names == set(same)
    for path, other in same.items():
        assert pick(found, path)["value"] == pytest.approx(pick(found, other)["value"])
        assert pick(found, path)["patients"] in (21, 9)
    assert found["classes"]["CN"]["recall"] == found["positive"]["specificity"] == found["classes"]["AD"]["specificity"]
    assert found["classes"]["AD"]["recall"] == found["positive"]["sensitivity"]
    assert found["classes"]["AD"]["auc"]["value"] == pytest.approx(found["classes"]["CN"]["auc"]["value"])


@pytest.mark.parametrize(("counts", "absent"), [((8, 8, 0), "positive"), ((0, 0, 8), "negative")])
def test_the_two_way_figures_need_both_sides(counts, absent):
    found = Summary(people(counts, classes=label_set(["CN", "MCI", "AD"]))).decisions()["positive"]
    missing = {"positive": {"sensitivity", "accuracy", "auc"}, "negative": {"specificity", "accuracy", "auc"}}[absent]
    assert {name for name, figure in found.items() if figure["value"] is None} == missing
    assert all(found[name]["why"].startswith("not estimable") and found[name]["low"] is None for name in missing)
    assert found["accuracy"]["why"] == f"not estimable: no {absent} patients"


def test_a_class_named_like_a_metric_has_the_reason_of_its_own_metric():
    classes = label_set(["A", "precision", "B"])
    answers = people((8, 8, 0), classes=classes)
    chances = answers.probabilities.copy()
    chances[:, 1] = 0
    found = Summary(replace(answers, probabilities=chances)).decisions()["classes"]["precision"]
    assert found["precision"]["why"] == "not estimable: never predicted"
    assert found["recall"]["value"] == 0


def test_a_weighting_leaves_one_patient_out():
    answers = people(seed=7)
    weights = leave_one_out(38)
    assert weights.shape == (39, 38)
    out = decision_scores(answers, weights, ALL) | ranking_scores(answers, weights, ALL)
    calibrated = calibration_scores(answers, weights)
    for patient in (0, 20, 37):
        rows = np.flatnonzero(answers.patients != patient)
        rest = Answers(answers.probabilities[rows], answers.labels[rows], np.zeros(len(rows), np.int64), FOUR_STAGES)
        found = {name: out[name][1 + patient] for name in of_sklearn(rest)}
        assert found == pytest.approx(of_sklearn(rest), abs=1e-12)
        expected = calibration_scores(rest, once(rest))
        assert {name: values[1 + patient] for name, values in calibrated.items()} == pytest.approx(
            {name: values[0] for name, values in expected.items()}, abs=1e-12
        )


def test_calibration_figures_by_hand():
    chances = np.array([[0.9, 0.1, 0, 0], [0.9, 0.1, 0, 0], [0.3, 0.5, 0.1, 0.1], [0.25, 0.25, 0.25, 0.25]])
    answers = Answers(chances, np.array([0, 1, 1, 3]), np.arange(4), FOUR_STAGES)
    found = calibration_scores(answers, np.ones((1, 4)))
    assert found["ece"][0] == pytest.approx((abs(1 - 1.8) + 0.5 + 0.25) / 4)
    assert found["nll"][0] == pytest.approx(-np.log([0.9, 0.1, 0.5, 0.25]).mean())
    assert found["brier"][0] == pytest.approx((0.02 + (0.81 + 0.81) + 0.36 + 0.75) / 4)


def test_risk_and_coverage_by_hand():
    sure = np.array([0.9, 0.8, 0.7, 0.6])
    answers = Answers(
        np.column_stack([sure, 1 - sure, 0 * sure, 0 * sure]), np.array([0, 1, 0, 1]), np.arange(4), FOUR_STAGES
    )
    risk, area = risk_at(answers, np.ones((1, 4)), np.array([0.25, 0.5, 0.75, 1]))
    assert risk[0] == pytest.approx([0, 1 / 2, 1 / 3, 1 / 2])
    assert area[0] == pytest.approx(risk[0].mean())
    twice, _ = risk_at(answers, np.array([[0, 2, 1, 1.0]]), np.array([0.5, 1]))
    assert twice[0] == pytest.approx([1, 3 / 4])


def test_a_patient_is_the_mean_over_the_slices():
    answers = Answers(
        np.array([[1, 0, 0, 0], [0.4, 0.6, 0, 0], [0, 0, 1, 0]], float),
        np.array([0, 0, 2]),
        np.array([0, 0, 1]),
        FOUR_STAGES,
    )
    whole = answers.by_patient()
    assert np.allclose(whole.probabilities, [[0.7, 0.3, 0, 0], [0, 0, 1, 0]])
    assert whole.labels.tolist() == [0, 2]


def test_few_patients_give_no_figure_instead_of_zero_or_one():
    answers = people((16, 11, 5, 2))
    summary = Summary(answers)
    figures = summary.decisions()
    assert figures["counted"] == list(LABELS[:3])
    assert figures["chance"] == pytest.approx(1 / 3)
    for name in ("precision", "recall", "f1", "auc"):
        figure = figures["classes"]["ModerateDemented"][name]
        assert figure["value"] is figure["low"] is figure["high"] is None
        assert figure["why"] == "not estimable: 2 patients, fewer than 5"
        said = len(np.unique(answers.patients[answers.decisions == 2]))
        assert figures["classes"]["MildDemented"][name]["patients"] == (said if name == "precision" else 5)
    assert figures["classes"]["ModerateDemented"]["specificity"]["patients"] == 32
    recalls = [figures["classes"][label]["recall"]["value"] for label in LABELS[:3]]
    assert figures["balanced_accuracy"]["value"] == pytest.approx(np.mean(recalls))


def test_a_class_that_is_never_answered_has_no_precision():
    answers = people((8, 8, 8, 8))
    chances = answers.probabilities.copy()
    chances[:, 2] = 0
    figures = Summary(Answers(chances, answers.labels, answers.patients, FOUR_STAGES)).decisions()
    assert figures["classes"]["MildDemented"]["precision"]["why"] == "not estimable: never predicted"
    assert figures["macro"]["precision"]["value"] is None
    assert figures["classes"]["MildDemented"]["recall"]["value"] == 0
    assert figures["classes"]["MildDemented"]["recall"]["high"] > 0.3


def test_unknown_patients_give_figures_without_intervals():
    answers = people((16, 11, 6, 5))
    unknown = Summary(
        Answers(answers.probabilities, answers.labels, np.arange(len(answers.labels)), FOUR_STAGES), None
    ).decisions()
    known = Summary(answers).decisions()
    for path in ("accuracy", "kappa", "balanced_accuracy"):
        assert unknown[path]["value"] == pytest.approx(known[path]["value"], abs=1e-12)
        assert unknown[path]["low"] is unknown[path]["patients"] is None
        assert unknown[path]["why"] == "interval not estimable: the dependence between slices is unknown"
        assert known[path]["low"] < known[path]["value"] < known[path]["high"]


def test_an_interval_over_slices_would_be_far_too_narrow():
    """What the patients are drawn for: eight slices of a person are not eight times the evidence."""
    answers = people((20, 20, 20, 20))
    patients = Summary(answers).decisions()["accuracy"]
    alone = Answers(answers.probabilities, answers.labels, np.arange(len(answers.labels)), FOUR_STAGES)
    slices = Summary(alone).decisions()["accuracy"]
    assert patients["high"] - patients["low"] > 1.5 * (slices["high"] - slices["low"])


def test_absent_classes_warn_nobody():
    answers = people((6, 6, 6, 0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures = Summary(answers).decisions()
    assert figures["classes"]["ModerateDemented"]["recall"]["value"] is None
