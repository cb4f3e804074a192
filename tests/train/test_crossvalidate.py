"""`python -m train.crossvalidate`: every patient is judged once, by a network that was not trained on them."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from stageproof.runtime.errors import CheckpointError
from stageproof.runtime.labels import FOUR_STAGES, LABELS
from stageproof.runtime.softmax import probabilities
from stageproof.train.calibration.fit import cross_fit, fit_temperature
from stageproof.train.calibration.study_fit import cross_fit_study, study_evidence
from stageproof.train.crossvalidate.__main__ import main
from stageproof.train.crossvalidate.page import draw_forest
from stageproof.train.crossvalidate.pooling import Folds, figures, pool
from stageproof.train.crossvalidate.text import lines, spread
from stageproof.train.metrics.classification import Answers
from stageproof.train.runs.record import read_record
from stageproof.train.test_set.held_out import held_out
from stageproof.train.test_set.predictions import predict_slices
from tests.pages import read_page
from tests.train.small_networks import SMALLEST

TINY = [
    "--recipe",
    "resnet34-gray",
    *SMALLEST,
    "--image-size",
    "32",
    "--full.epochs",
    "1",
    "--precision",
    "fp32",
    "--device",
    "cpu",
]


@pytest.fixture(scope="module")
def people(small_run, tmp_path_factory) -> list[str]:
    """Options that name two slices of each of 48 people, and who is who."""
    root = tmp_path_factory.mktemp("people")
    rows = ["file,group"]
    for file in sorted(Path(read_record(small_run)["options"]["data"]).rglob("*.png")):
        if not file.stem.endswith("_0.5"):
            (root / "slices" / file.parent.name).mkdir(parents=True, exist_ok=True)
            os.link(file, root / "slices" / file.parent.name / file.name)
            rows.append(f"{file.parent.name}/{file.name},{file.name[:4]}")
    (root / "ids.csv").write_text("\n".join(rows))
    return ["--data", str(root / "slices"), "--groups", str(root / "ids.csv")]


@pytest.fixture(scope="module")
def crossed(people, tmp_path_factory) -> Path:
    """Two folds, trained and judged. Do not change it: copy it."""
    out = tmp_path_factory.mktemp("crossed") / "cv"
    assert main([*TINY, *people, "--folds", "2", "--resamples", "200", "--out", str(out)]) == 0
    return out


def copied(folder: Path, place: Path) -> Path:
    return Path(shutil.copytree(folder, place / "cv", copy_function=os.link))


def held_out_of(run: Path) -> set[str]:
    with (run / "split.csv").open(newline="") as file:
        return {row["patient"] for row in csv.DictReader(file) if row["side"] == "validation"}


def test_every_patient_is_judged_once_by_the_network_that_never_saw_them(crossed):
    facts = json.loads((crossed / "crossvalidation.json").read_text(), parse_constant=pytest.fail)
    sides = [held_out_of(crossed / f"fold-{fold}") for fold in (1, 2)]
    assert not sides[0] & sides[1]
    assert len(sides[0] | sides[1]) == facts["data"]["patients"] == 48
    assert facts["data"]["slices"] == np.sum(facts["slices"]["confusion"]) == 96
    assert np.sum(facts["patients"]["confusion"]) == 48
    assert [fold["held_out"]["patients"] for fold in facts["folds"]] == [len(side) for side in sides]
    assert facts["split"]["leaked"] == [0.0, 0.0]


def test_the_figures_are_those_of_the_folds(crossed):
    facts = json.loads((crossed / "crossvalidation.json").read_text())
    records = [read_record(crossed / f"fold-{fold}") for fold in (1, 2)]
    told = [record["metrics"]["accuracy"] for record in records]
    assert [fold["slices"]["accuracy"] for fold in facts["folds"]] == pytest.approx(told)
    mean = facts["over_folds"]["slices"]["accuracy"]
    assert (mean["mean"], mean["sd"], mean["folds"]) == pytest.approx((np.mean(told), np.std(told, ddof=1), 2))
    assert mean["low"] < mean["mean"] < mean["high"]
    weights = [record["metrics"]["slices"] for record in records]
    assert facts["slices"]["accuracy"]["value"] == pytest.approx(np.average(told, weights=weights))
    assert facts["slices"]["accuracy"]["low"] < facts["slices"]["accuracy"]["high"]
    said = lines(facts)
    assert max(map(len, said)) <= 80
    assert f"{100 * mean['mean']:.1f} % [{100 * mean['low']:.1f}, {100 * mean['high']:.1f}], SD" in "\n".join(said)


def test_patients_are_judged_by_the_rule_for_studies_as_evaluate_judges_them(crossed):
    facts = json.loads((crossed / "crossvalidation.json").read_text())
    assert facts["studies_by"] == "cross-fitted"
    right = 0
    for number in (1, 2):
        run = crossed / f"fold-{number}"
        record = read_record(run)
        held = held_out(run, record, None)
        evidence = study_evidence(probabilities(predict_slices(run, record, held.slices)), held.patients)
        stage = np.empty(len(evidence), np.int64)
        stage[held.patients] = held.slices.labels
        good = (cross_fit_study(evidence, stage).argmax(1) == stage).sum()
        assert facts["folds"][number - 1]["patients"]["accuracy"] == pytest.approx(good / len(stage))
        right += good
    assert facts["patients"]["accuracy"]["value"] == pytest.approx(right / 48)


def test_calibration_is_that_of_temperatures_fitted_on_other_patients(crossed):
    facts = json.loads((crossed / "crossvalidation.json").read_text())
    before, after, labels = [], [], []
    for fold in (1, 2):
        run = crossed / f"fold-{fold}"
        record = read_record(run)
        held = held_out(run, record, None)
        logits = predict_slices(run, record, held.slices)
        judged = cross_fit(logits, held.slices.labels, held.patients, None)
        first = judged.half == 0
        told = fit_temperature(logits[~first], held.slices.labels[~first]) or 1.0
        assert np.allclose(judged.probabilities[first], probabilities(logits[first], told))
        before.append(probabilities(logits))
        after.append(judged.probabilities)
        labels.append(held.slices.labels)
    rows, right = np.arange(96), np.concatenate(labels)
    for side, chances in (("before", before), ("after", after)):
        loss = -np.log(np.concatenate(chances)[rows, right]).mean()
        assert facts["calibration"][side]["nll"]["value"] == pytest.approx(loss)
    brier = {side: facts["calibration"][side]["brier"]["value"] for side in ("before", "after", "change")}
    assert brier["change"] == pytest.approx(brier["after"] - brier["before"])
    for side in ("before", "after", "patients"):
        ece = facts["calibration"][side]["ece"]
        assert ece["value"] == pytest.approx(ece["raw"] - ece["expected"])
    assert f"{facts['calibration']['after']['brier']['value']:.3f} [" in "\n".join(lines(facts))


def test_what_is_missing_is_trained_and_nothing_else(crossed, people, tmp_path, capsys):
    out = copied(crossed, tmp_path)
    before = json.loads((out / "crossvalidation.json").read_text())
    shutil.rmtree(out / "fold-2")
    (out / "crossvalidation.json").unlink()
    kept = (out / "fold-1" / "run.json").stat().st_ino
    assert main([*TINY, *people, "--folds", "2", "--resamples", "200", "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == before
    assert (out / "fold-1" / "run.json").stat().st_ino == kept
    assert not list(out.glob(".*"))


def test_folds_that_were_told_something_else_are_refused(crossed, people, tmp_path, capsys):
    out = copied(crossed, tmp_path)
    shutil.rmtree(out / "fold-2")
    assert main([*TINY, *people, "--full.epochs", "2", "--folds", "2", "--out", str(out)]) == 2
    assert "fold-1: full.epochs is 2, was 1" in capsys.readouterr().err
    assert sorted(path.name for path in out.iterdir()) == ["crossvalidation.html", "crossvalidation.json", "fold-1"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--fold", "1/2"], "--fold is not allowed"),
        (["--fold=1/2"], "--fold is not allowed"),
        (["--resume"], "--resume is not allowed"),
        (["--data", "nowhere"], "nowhere does not exist"),
    ],
)
def test_what_cannot_be_used_is_one_line_and_leaves_nothing(tmp_path, capsys, words, message):
    assert main([*TINY, *words, "--out", str(tmp_path / "cv")]) == 2
    said = capsys.readouterr().err.splitlines()
    assert message in said[-1]
    assert not list(tmp_path.rglob("fold-*"))


def test_runs_that_are_no_folds_of_each_other(crossed, tmp_path):
    twice = tmp_path / "twice"
    shutil.copytree(crossed / "fold-1", twice, copy_function=os.link)
    with pytest.raises(CheckpointError, match="is held out in two folds"):
        pool([crossed / "fold-1", twice])
    record = json.loads((twice / "run.json").read_text())
    record["split"]["seed"] = 9
    (twice / "run.json").unlink()
    (twice / "run.json").write_text(json.dumps(record))
    with pytest.raises(CheckpointError, match="has other data, another recipe or another split than"):
        pool([crossed / "fold-1", twice])


def test_leakage_is_said_before_the_figures(crossed, people, tmp_path, capsys):
    out = copied(crossed, tmp_path)
    record = json.loads((out / "fold-2" / "run.json").read_text())
    record["split"]["leaked"] = 0.5
    (out / "fold-2" / "run.json").unlink()
    (out / "fold-2" / "run.json").write_text(json.dumps(record))
    assert main([*TINY, *people, "--folds", "2", "--resamples", "200", "--out", str(out)]) == 0
    assert " ".join(capsys.readouterr().out.split()).startswith(
        "LEAKAGE: up to 50% of the test slices of a fold show a patient of its training set."
    )


@pytest.mark.slow
def test_the_published_protocol_leaks_and_says_so(people, tmp_path, capsys):
    out = tmp_path / "cv"
    words = [*TINY, *people, "--folds", "2", "--resamples", "200", "--out", str(out)]
    assert main([*words, "--split", "slice"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("LEAKAGE: up to ")
    facts = json.loads((out / "crossvalidation.json").read_text())
    assert min(facts["split"]["leaked"]) > 0.3
    assert facts["calibration"] is None  # nobody here is a patient that a temperature could be judged on
    assert facts["data"]["patients"] == np.sum(facts["patients"]["confusion"]) == 48


def answers_of(recalls: dict[int, float], fold: int, people: int) -> list[tuple]:
    """(label, decision) of `people` patients of each class, the share of `recalls` of them right."""
    told = []
    for label, recall in recalls.items():
        told += [(label, label if place < recall * people else (label + 1) % 4, fold) for place in range(people)]
    return told


def folds_of(told: list[tuple]) -> Folds:
    labels, decisions, fold = (np.array(column) for column in zip(*told, strict=True))
    return Folds(Answers(np.eye(4)[decisions], labels, np.arange(len(labels)), FOUR_STAGES), fold, "patients")


def test_balanced_accuracy_is_over_the_same_classes_in_every_column():
    """Folds of one size in which each class is as often right: the mean over folds is the figure over all of them.

    The fourth class is one patient, in one fold, and always right: counted there and not in the others, it would lift
    that fold's mean.
    """
    told = [row for fold in (0, 1) for row in answers_of({0: 0.5, 1: 0.25, 2: 0.75}, fold, 12)] + [(3, 3, 1)]
    facts = figures(folds_of(told))
    assert [one["slices"]["balanced_accuracy"] for one in facts["folds"]] == pytest.approx([0.5, 0.5])
    assert facts["slices"]["counted"] == facts["patients"]["counted"] == list(LABELS[:3])
    for level in ("slices", "patients"):
        assert facts["over_folds"][level]["balanced_accuracy"]["mean"] == pytest.approx(0.5)
        assert facts[level]["balanced_accuracy"]["value"] == pytest.approx(0.5)


def test_a_fold_without_a_class_that_counts_has_no_balanced_accuracy():
    told = [*answers_of({0: 0.5, 1: 0.5, 2: 0.5, 3: 1.0}, 0, 12), *answers_of({0: 0.5, 1: 0.5, 2: 0.5}, 1, 12)]
    told += answers_of({0: 0.5, 1: 0.5, 2: 0.5, 3: 1.0}, 2, 12)
    facts = figures(folds_of(told))
    assert facts["folds"][0]["slices"]["balanced_accuracy"] == pytest.approx(0.625)
    assert facts["folds"][1]["slices"]["balanced_accuracy"] is None
    mean = facts["over_folds"]["slices"]["balanced_accuracy"]
    assert (mean["folds"], mean["mean"]) == (2, pytest.approx(0.625))
    assert spread(mean, True, 3).startswith("62.5 % [")
    assert spread(mean, True, 3).endswith("SD 0.0 (2 folds)")
    assert facts["over_folds"]["slices"]["accuracy"]["folds"] == 3


def test_a_shift_between_folds_lowers_the_pooled_area_only():
    rng = np.random.default_rng(0)
    labels, fold = np.arange(400) % 2, np.arange(400) // 2 % 5
    score = rng.normal(size=400) + labels
    for shift in (0.0, 3.0):
        chance = 1 / (1 + np.exp(-score - shift * fold))
        chances = np.stack([1 - chance, chance, 0 * chance, 0 * chance], 1)
        facts = figures(Folds(Answers(chances, labels, np.arange(400), FOUR_STAGES), fold, "patients"))
        mean, pooled = facts["over_folds"]["patients"]["positive.auc"], facts["patients"]["positive"]["auc"]
        assert mean["mean"] == pytest.approx(0.76, abs=0.04)
        assert (pooled["value"] < 0.65) == (shift > 0)
        assert mean["low"] < 0.76 < mean["high"]


def test_unknown_patients_have_means_without_intervals():
    facts = figures(
        Folds(
            Answers(np.eye(4)[[0, 1] * 20], np.array([0, 1] * 20), np.arange(40), FOUR_STAGES), np.arange(40) % 5, None
        )
    )
    mean = facts["over_folds"]["slices"]["accuracy"]
    assert (mean["mean"], mean["low"]) == (1.0, None)
    assert "unknown" in mean["why"]
    assert "patients" not in facts["over_folds"]


def test_the_lines_say_which_classes_balanced_accuracy_is_over(crossed):
    facts = json.loads((crossed / "crossvalidation.json").read_text())
    text = "\n".join(lines(facts))
    assert "too few to estimate" not in text
    facts["slices"]["counted"] = list(LABELS[:3])
    joined = f"the mean recall of {LABELS[0]}, {LABELS[1]} and {LABELS[2]}, without {LABELS[3]}, too few to estimate a"
    assert joined in " ".join(lines(facts))
    assert max(map(len, lines(facts))) <= 80


def test_the_page_answers_draws_and_says_what_was_selected(crossed):
    text = (crossed / "crossvalidation.html").read_text()
    facts = json.loads((crossed / "crossvalidation.json").read_text())
    order = [text.index(part) for part in ("<h1>", 'class="headline"', "<img", "<table")]
    assert order == sorted(order)
    page = read_page(text)
    assert [kind for _, kind, _ in page.pictures] == ["svg+xml"]
    mean = facts["over_folds"]["patients"]["accuracy"]
    assert f"Mean accuracy of patients over 2 folds: {spread(mean, True, 2)}" in page.text
    assert "What was selected, and on which slices" in page.text
    assert "All folds: No epoch was selected: the last one was kept" in page.text
    assert page.links == ["fold-1/index.html", "fold-2/index.html"]


def test_the_forest_has_every_fold_the_mean_and_the_pooled_figure_with_intervals(crossed):
    facts = json.loads((crossed / "crossvalidation.json").read_text())
    axes = Figure().subplots()
    draw_forest(axes, facts, "patients", "accuracy")
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["fold 1, n = 24", "fold 2, n = 24", "mean of folds", "pooled"]
    drawn = {tuple(map(float, line.get_xdata())) for line in axes.get_lines()}
    for fold in facts["folds"]:
        assert (fold["patients"]["accuracy"],) in drawn
    mean, pooled = facts["over_folds"]["patients"]["accuracy"], facts["patients"]["accuracy"]
    assert {(mean["low"], mean["high"]), (pooled["low"], pooled["high"]), (mean["mean"],), (pooled["value"],)} <= drawn


def test_a_forest_of_what_is_not_estimable_is_drawn_without_it():
    facts = figures(
        Folds(Answers(np.eye(4)[[0, 1] * 20], np.zeros(40, int), np.arange(40), FOUR_STAGES), np.arange(40) % 5, None)
    )
    axes = Figure().subplots()
    draw_forest(axes, facts, "slices", "positive.auc")
    assert "not estimable" in [text.get_text() for text in axes.texts]
