"""Evaluations, cards, cross-validations and audits of any label set: the right classes, by name, at every place."""

from __future__ import annotations

import copy
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stageproof.runtime.errors import CheckpointError, DatasetError
from stageproof.runtime.labels import FOUR_STAGES, LABELS, LabelSet, label_set
from stageproof.runtime.softmax import probabilities
from stageproof.train.audit.text import class_counts as counted
from stageproof.train.audit.text import statements
from stageproof.train.cards.cards import dataset_card, model_card
from stageproof.train.crossvalidate import pooling
from stageproof.train.crossvalidate.text import lines
from stageproof.train.data.decode import Slices
from stageproof.train.evaluate.evaluation import _check_record, _evaluate
from stageproof.train.evaluate.save import _write_predictions
from stageproof.train.metrics.between_runs import between_runs
from stageproof.train.metrics.classification import Answers, class_counts
from stageproof.train.reports.evaluation_page import page
from stageproof.train.runs.record import label_set_of, read_evaluation, read_record
from stageproof.train.test_set.held_out import HeldOut, held_out
from tests.train.copied_runs import copied, rewritten

TWO = label_set(["CN", "AD"])
CDR = label_set(["CDR 0", "CDR 0.5", "CDR 1"])
SEVEN = label_set(
    ["=control", "SMC (subjective)", "early.MCI", "MCI", "LMCI, late".replace(",", ""), "positive", "all"],
    ["early.MCI", "MCI", "LMCI late"],
)
"""Names that contain dots, look like formulas, or equal keys of the JSON; the positives are in the middle."""


def named(value: LabelSet | str) -> str:
    return value if isinstance(value, str) else f"{len(value)} classes"


def evaluation(classes: LabelSet, absent: str = "", people: int = 6):
    """Record, facts and what is written, of a network that knows all classes, judged on strangers without `absent`."""
    rng, count = np.random.default_rng(0), len(classes)
    stage = np.repeat([at for at, name in enumerate(classes.names) if name != absent], people)
    patients, labels = np.repeat(np.arange(len(stage)), 3), np.repeat(stage, 3)
    logits = (rng.normal(size=(len(labels), count)) + 2 * np.eye(count)[labels]).astype(np.float32)

    def slices(labels: np.ndarray, name: str) -> Slices:
        pixels = rng.integers(0, 255, (len(labels), 1, 8, 8)).astype(np.uint8)
        small = rng.integers(0, 255, (len(labels), 64, 64)).astype(np.uint8)
        return Slices(pixels, small, labels, tuple(f"{name}{at}.png" for at in range(len(labels))), None)

    every = np.arange(60) % count
    held = HeldOut(
        slices(labels, "held"),
        patients,
        "file",
        "nowhere",
        "ab" * 32,
        own=False,
        leaked=0.0,
        seen=0,
        unreadable=0,
        training=slices(every, "training"),
        training_patients=np.arange(60),
        sizes=((8, 8, len(labels)),),
    )
    record = {
        "architecture": "resnet50",
        "labels": list(classes.names),
        **classes.to_dict(),
        "input": {"width": 8, "height": 8, "channels": 1},
        "temperature": 1.5,
        "start": "random weights",
        "arithmetic": "float32",
        "device": "cpu",
        "weights_sha256": "cd" * 32,
        "recipe": {"name": "demo"},
        "data": {
            "slices": 60,
            "slices_by_class": class_counts(every, classes),
            "patients": 60,
            "patients_told_by": "file",
            "digest": "ab" * 32,
            "unreadable": 0,
        },
        "split": {"by": "patient", "fold": "1/5", "seed": 0},
    }
    facts, written = _evaluate(Path("run"), record, held, logits, None, 0)
    return record, json.loads(json.dumps(facts, allow_nan=False)), written


@pytest.mark.parametrize(
    ("classes", "absent"), [(TWO, "AD"), (CDR, "CDR 0.5"), (SEVEN, "early.MCI"), (SEVEN, "")], ids=named
)
def test_figures_page_and_cards_have_every_class_by_name(classes, absent, tmp_path):
    record, facts, written = evaluation(classes, absent, 12 if classes is TWO else 6)
    assert (facts["clinical_order"], facts["positive"]) == (list(classes.names), list(classes.positive))
    for level in ("slices", "patients"):
        assert list(facts[level]["classes"]) == list(classes.names)
        for at, (name, figures) in enumerate(facts[level]["classes"].items()):
            answers = written.after if level == "slices" else written.people
            rows = answers.labels == at
            if name == absent:
                assert not rows.any()
                assert all(figure["why"].startswith("not estimable") for figure in figures.values())
            else:
                assert figures["recall"]["value"] == pytest.approx((answers.decisions[rows] == at).mean())
        assert facts[level]["counted"] == [name for name in classes.names if name != absent]
    positives = {name: facts["patients"]["positive"][name]["value"] for name in ("sensitivity", "specificity", "auc")}
    assert (positives["sensitivity"] is None) == (positives["auc"] is None) == (absent == "AD")
    assert positives["specificity"] is not None
    large = facts["calibration"]["assessment"]["patients"]["in_the_large"]
    total = sum(large["classes"][name]["value"] for name in classes.positive)
    assert large["positive"]["value"] == pytest.approx(total)
    html = page(facts, {})
    cards = model_card(record, facts), dataset_card(record, facts)
    for text in (html, *cards):
        assert all(name in text for name in classes.names)
        assert ("emented" in text) == (classes is CDR and text is not cards[1])
    assert ("NO SLICE OF " + absent in html) == bool(absent)
    _write_predictions(tmp_path / "predictions.csv", written)
    header, first = (tmp_path / "predictions.csv").read_text().splitlines()[:2]
    assert header.split(",")[4 : 4 + len(classes)] == [f"logit_{name}" for name in classes.names]
    assert first.split(",")[1] == ("'=control" if classes is SEVEN else classes.names[0])


def test_of_two_classes_nothing_is_printed_twice():
    _, facts, _ = evaluation(TWO)
    html = page(facts, {})
    assert "AD or not: sensitivity" in html
    assert not any(text in html for text in ("AD or not: accuracy", "macro AUC", "macro specificity", "quadratic"))
    assert "<th>specificity</th>" not in html[: html.index("<h2>Calibration")]
    _, facts, _ = evaluation(CDR)
    assert "demented or not: accuracy" in page(facts, {})
    assert "Demented: CDR 0.5 or CDR 1." in page(facts, {})


def test_positive_probabilities_reach_net_benefit_and_predictive_values():
    """With other positives the same predictions have the figures of these, not those of all classes but the first."""
    _, facts, written = evaluation(SEVEN)
    people = written.people
    ill = np.isin(people.labels, [2, 3, 4])
    row = facts["net_benefit"]["curve"][9]
    treated = people.probabilities[:, 2:5].sum(1) >= row["threshold"]
    assert (row["true_positives"], row["false_positives"]) == ((treated & ill).sum(), (treated & ~ill).sum())
    assert facts["predictive_values"]["patients_with"] == ill.sum() == 18
    assert facts["net_benefit"]["prevalence"] == pytest.approx(18 / 42)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": None}, "labels is None, expected a list of class names"),
        ({"labels": ["CN", 3]}, "expected a list of class names"),
        ({"labels": ["AD", "CN"]}, "expected them in clinical order, CN, AD"),
        ({"labels": ["B", "A"], "clinical_order": ["A", "B"]}, "labels is B, A, expected A, B: the outputs of a run"),
        ({"labels": ["CN", "AD"], "positive": ["MCI"]}, "positive classes MCI: expected some of CN, AD"),
        ({"labels": ["CN"]}, "1 classes"),
    ],
)
def test_a_record_without_a_valid_label_set_is_refused(change, message):
    with pytest.raises(CheckpointError, match=message) as refused:
        label_set_of(change, Path("run"))
    assert str(refused.value).startswith(str(Path("run", "run.json")))
    assert str(refused.value).endswith("Train again.")


def test_the_label_set_of_a_run():
    assert label_set_of({"labels": list(LABELS)}, Path("run")) == FOUR_STAGES  # of version 0.1
    for classes in (TWO, CDR, SEVEN):
        assert label_set_of({"labels": list(classes.names), **classes.to_dict()}, Path("run")) == classes
    with pytest.raises(CheckpointError, match="has no labels: this version cannot evaluate it"):
        _check_record(Path("run"), {"architecture": "resnet50"})


def test_other_data_with_a_class_that_the_run_does_not_have_is_refused_by_name(small_run, tmp_path):
    for name in ("NonDemented", "MCI"):
        (tmp_path / "other" / name).mkdir(parents=True)
        Image.new("L", (48, 48)).save(tmp_path / "other" / name / "one.png")
    with pytest.raises(DatasetError, match="MCI"):
        held_out(small_run, read_record(small_run), tmp_path / "other")


def test_runs_of_earlier_versions_count_beside_a_run_and_runs_of_another_question_do_not(evaluated, tmp_path):
    place = tmp_path / "runs"
    run, old, other = (Path(shutil.copytree(evaluated, place / name, copy_function=os.link)) for name in "abc")
    facts = read_evaluation(run / "evaluation")
    for folder, value in ((old, 0.25), (other, 0.99)):
        changed = copy.deepcopy(facts)
        for level in ("slices", "patients"):
            changed[level]["demented"] = changed[level].pop("positive")
            changed[level]["demented"]["auc"]["value"] = value
        path = folder / "evaluation" / "evaluation.json"
        path.unlink()
        path.write_text(json.dumps({**changed, "schema": 1}))
    rewritten(old, lambda record: [record.pop(key) for key in ("clinical_order", "positive")])
    rewritten(other, lambda record: record.update(positive=["ModerateDemented"]))
    found = between_runs(run, read_record(run), facts)
    assert found["runs"] == 2
    assert found["spread"]["auc"]["mean"] == pytest.approx((0.25 + facts["patients"]["positive"]["auc"]["value"]) / 2)


def folds(classes: LabelSet, people: int = 70) -> pooling.Folds:
    rng = np.random.default_rng(1)
    labels = np.arange(people) % len(classes)
    chances = probabilities(rng.normal(size=(people, len(classes))) + np.eye(len(classes))[labels])
    return pooling.Folds(Answers(chances, labels, np.arange(people), classes), np.arange(people) // 7 % 5, "patients")


@pytest.mark.parametrize("classes", [TWO, CDR, SEVEN], ids=named)
def test_a_cross_validation_of_any_classes_fits_80_columns(classes):
    facts = pooling.figures(folds(classes))
    facts |= {
        "data": {"slices": 70, "patients": 70, "groups": None},
        "split": {"folds": 5, "leaked": [0.0] * 5},
        "shuffled_labels": None,
        "calibration": None,
    }
    text = lines(facts)
    assert max(map(len, text)) <= 80
    assert facts["clinical_order"] == list(classes.names)
    assert any("not: AUC" in line for line in text)
    assert any("not: accuracy" in line for line in text) == (len(classes) > 2)


def test_folds_of_different_classes_are_refused():
    records = [{"labels": ["A", "B", "C"], "positive": [positive]} for positive in "CB"]
    with pytest.raises(CheckpointError, match=r"2 has the classes A, B, C \(positive: B\), and 1 has A, B, C \(pos"):
        pooling._check_together([Path("1"), Path("2")], records)


def test_an_audit_names_the_question_and_counts_a_class_that_is_called_all(tmp_path):
    from stageproof.train.audit.__main__ import main

    rng, data = np.random.default_rng(0), tmp_path / "data"
    for name in ("CN", "AD"):
        (data / name).mkdir(parents=True)
        for patient in range(6):
            for at in range(3):
                pixels = rng.integers(0, 255, (32, 32)).astype(np.uint8)
                Image.fromarray(pixels).save(data / name / f"sub-{name}{patient}_slice-{at}.png")
    assert main(["--data", str(data), "--out", str(tmp_path / "audit")]) == 0
    findings = json.loads((tmp_path / "audit" / "audit.json").read_text())
    assert (findings["clinical_order"], findings["positive"]) == (["CN", "AD"], ["AD"])
    assert any("correctly as AD or not" in text for head, text in statements(findings) if head == "linear")
    heads, rows = counted({"slices_by_class": {"B": 2, "all": 3}, "patients_by_class": None, "slices": 5})
    assert rows == (("B", "2"), ("all", "3"), ("all", "5"))
    assert heads == ("class", "slices")


@pytest.mark.slow
@pytest.mark.parametrize("classes", [TWO, CDR, SEVEN], ids=named)
def test_a_run_of_any_classes_is_evaluated_also_on_strangers_without_a_class(classes, tmp_path, capsys):
    from stageproof.train.evaluate.__main__ import main
    from tests.train import small_run as small

    small.write(tmp_path, classes, 10)
    run = tmp_path / "runs" / "small"
    assert main([str(run)]) == 0
    assert max(map(len, capsys.readouterr().out.partition("\nreport ")[0].splitlines())) <= 80
    assert (run / "MODEL_CARD.md").is_file()
    assert (run / "evaluation" / "roc-classes.png").is_file() == (len(classes) > 2)
    absent, others = classes.names[0], tmp_path / "others"
    small.slices_of(others, classes, 6, first=50, present=classes.names[1:])
    assert main([str(run), "--data", str(others), "--out", str(tmp_path / "out")]) in (0, 1)
    assert max(map(len, capsys.readouterr().out.partition("\nreport ")[0].splitlines())) <= 80
    facts = read_evaluation(tmp_path / "out")
    assert all(figure["value"] is None for figure in facts["slices"]["classes"][absent].values())
    assert facts["slices"]["counted"] == list(classes.names[1:])
    assert any(warning.startswith(f"NO SLICE OF {absent}: ") for warning in facts["warnings"])


def test_a_class_in_the_split_of_a_control_run_that_the_run_does_not_have(small_run, tmp_path):
    run = copied(small_run, tmp_path)
    path = run / "split.csv"
    text = path.read_text()
    path.unlink()
    path.write_text(text.replace(",NonDemented,", ",CN,"))
    rewritten(run, lambda record: record["split"].update(shuffled_labels=1))
    with pytest.raises(CheckpointError, match="has the class 'CN', expected one of NonDemented"):
        held_out(run, read_record(run), None)
