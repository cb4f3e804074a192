"""`python -m train.evaluate` on a run of the default recipe, and on what it must not be fooled by."""

from __future__ import annotations

import csv
import json
import re

import numpy as np
import pytest
from matplotlib.figure import Figure

from stageproof.runtime.bundle.manifest import ModelInfo
from stageproof.runtime.labels import FOUR_STAGES, LABELS
from stageproof.runtime.softmax import probabilities
from stageproof.train.evaluate.__main__ import main
from stageproof.train.metrics.classification import Answers
from stageproof.train.reports.charts.evaluation import draw_class_rocs
from stageproof.train.reports.misclassified import misclassified, most_confident_errors, summary
from stageproof.train.runs.record import read_record
from tests.pages import read_page
from tests.train.copied_runs import contents, copied, slices_of


@pytest.fixture(scope="module")
def facts(evaluated) -> dict:
    return json.loads((evaluated / "evaluation" / "evaluation.json").read_text(), parse_constant=pytest.fail)


def test_the_figures_are_those_of_the_slices_that_the_run_held_out(evaluated, facts):
    record = read_record(evaluated)
    assert facts["data"]["held_out_by_run"] is True
    assert facts["data"]["leaked"] == facts["data"]["left_out_as_seen"] == 0
    assert facts["data"]["slices"] == record["metrics"]["slices"]
    assert facts["data"]["patients"] == record["metrics"]["patients"]
    assert facts["data"]["patients_by_class"] == record["metrics"]["patients_by_class"]
    assert facts["slices"]["accuracy"]["value"] == pytest.approx(record["metrics"]["accuracy"])
    assert facts["patients"]["accuracy"]["value"] > 1.5 / 4
    assert np.sum(facts["slices"]["confusion"]) == facts["data"]["slices"]
    assert np.sum(facts["patients"]["confusion"]) == facts["data"]["patients"]
    for level in ("slices", "patients"):
        accuracy = facts[level]["accuracy"]
        assert accuracy["low"] < accuracy["value"] < accuracy["high"]
        assert accuracy["patients"] == facts["data"]["patients"]
    assert facts["slices"]["counted"] == list(LABELS)
    assert facts["control"]["identity"]["holds"] is True
    assert facts["control"]["permutation"]["shuffled_mean"] == pytest.approx(0.25, abs=0.03)


def test_the_predictions_are_written_out_and_add_up(evaluated, facts):
    with (evaluated / "evaluation" / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    with (evaluated / "split.csv").open(newline="") as file:
        held = [row["name"] for row in csv.DictReader(file) if row["side"] == "validation"]
    assert [row["name"] for row in rows] == held
    right = [row["label"] == row["decision"] for row in rows]
    assert np.mean(right) == pytest.approx(facts["slices"]["accuracy"]["value"])
    logits = np.array([[float(row[f"logit_{label}"]) for label in LABELS] for row in rows])
    chances = np.array([[float(row[f"probability_{label}"]) for label in LABELS] for row in rows])
    possible = [probabilities(logits, one or 1.0) for one in facts["calibration"]["crossfit_temperatures"]]
    assert np.minimum(*(np.abs(one - chances).max(1) for one in possible)).max() < 1e-4


def test_the_run_keeps_temperature_and_threshold_for_the_manifest(evaluated, facts, small_run):
    record = read_record(evaluated)
    info = ModelInfo.from_dict({**record, "digest": record["weights_sha256"]}, "run")
    assert info.temperature == facts["calibration"]["temperature"] != 1
    assert info.abstain_below == facts["abstention"]["abstain_below"]
    assert info.study is not None
    assert info.study.to_dict() == facts["calibration"]["study"]
    assert info.study.abstain_below == facts["abstention"]["study_abstain_below"]
    before = read_record(small_run)
    fitted = {"temperature", "abstain_below", "study", "target_risk", "target_confidence", "evaluated"}
    assert {key: value for key, value in record.items() if key not in fitted} == {
        key: value for key, value in before.items() if key not in fitted
    }
    assert before["temperature"] == 1


def test_the_report_is_one_page_that_fetches_nothing(evaluated, facts):
    page = (evaluated / "evaluation" / "report.html").read_text()
    wrong = facts["data"]["slices"] - np.trace(facts["slices"]["confusion"])
    found = read_page(page)
    assert [kind for _, kind, _ in found.pictures] == ["png"] * (9 + min(24, wrong))
    assert page.count("<table>") >= 5
    assert page.count(",\N{NO-BREAK SPACE}") > 20  # intervals in cells, not broken over two lines
    assert not list(evaluated.glob(".*"))


def test_misclassified_slices_are_shown_by_digest_the_most_confident_first(evaluated):
    folder = evaluated / "evaluation"
    page = (folder / "report.html").read_text()
    shown = re.findall(
        r"<figcaption>true: ([\d.]+).%<br><b>(\w+)</b><br>predicted: ([\d.]+).%<br><b>(\w+)</b><br>(image-\w+)<", page
    )
    with (folder / "predictions.csv").open(newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    wrong = [row for row in rows.values() if row["label"] != row["decision"]]
    assert len(shown) == min(24, len(wrong)) > 0
    names = json.loads((folder / "names.json").read_text())["names"]
    assert (folder / "names.json").stat().st_mode & 0o077 == 0
    assert len(names) == len(shown)
    for true, label, predicted, decision, digest in shown:
        row = rows[names[digest]]
        assert (row["label"], row["decision"]) == (label, decision)
        assert 100 * float(row[f"probability_{label}"]) == pytest.approx(float(true), abs=0.06)
        assert 100 * float(row[f"probability_{decision}"]) == pytest.approx(float(predicted), abs=0.06)
    certain = [float(one[2]) for one in shown]
    assert certain == sorted(certain, reverse=True)
    assert not any(name in page for name in rows)


def test_at_most_24_errors_are_shown_and_none_where_there_are_none():
    labels = np.arange(40) % 4
    right = Answers(np.eye(4)[labels], labels, np.arange(40), FOUR_STAGES)
    pixels = np.zeros((40, 3, 8, 8), np.uint8)
    assert misclassified(right, pixels, []) == []
    assert summary([], 0, 40) == "None of the 40 slices is misclassified."
    wrong = Answers(np.eye(4)[(labels + 1) % 4], labels, np.arange(40), FOUR_STAGES)
    shown = misclassified(wrong, pixels, [f"image-{at}" for at in most_confident_errors(wrong)])
    assert len(shown) == 24
    assert "40 of 40 slices are misclassified. The 24 of highest probability are shown" in summary(shown, 40, 40)


def test_curves_of_each_class_come_with_the_area_and_interval_of_the_figures(facts):
    labels = np.arange(40) % 3
    answers = Answers(np.random.default_rng(0).dirichlet(np.ones(4), 40), labels, np.arange(40), FOUR_STAGES)
    axes = Figure().subplots()
    draw_class_rocs(axes, "slices", facts["slices"]["classes"], answers)
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    auc = facts["slices"]["classes"][LABELS[0]]["auc"]
    assert texts[0] == f"Non: AUC {auc['value']:.3f} [{auc['low']:.3f}, {auc['high']:.3f}]"
    assert texts[3] == "Moderate: no curve, one class only"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("1 − specificity", "sensitivity")


def test_the_run_has_an_index_of_what_is_there(evaluated):
    links = read_page((evaluated / "index.html").read_text()).links
    assert {"evaluation/report.html", "MODEL_CARD.md", "evaluation/roc-classes.png", "run.json", "split.csv"} <= set(
        links
    )
    for link in links:
        assert (evaluated / link).is_file()


@pytest.mark.usefixtures("drawn_once")
def test_the_figures_fit_80_columns(small_run, tmp_path, capsys):
    assert main([str(copied(small_run, tmp_path)), "--resamples", "200"]) == 0
    said = capsys.readouterr().out.partition("\nreport ")[0]
    assert max(map(len, said.splitlines())) <= 80
    assert "calibration error" in said


@pytest.mark.usefixtures("drawn_once")
def test_evaluating_again_gives_the_same_and_replaces_it(evaluated, facts, tmp_path, capsys):
    run = copied(evaluated, tmp_path)
    stray = run / "evaluation" / "old.txt"
    stray.write_text("left from before")
    assert main([str(run), "--target-risk", "0.8", "--resamples", "400", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert {**said, "created": "", "run": ""} == {**facts, "created": "", "run": ""}
    assert not stray.exists()
    assert not list(run.glob(".*"))


def test_a_folder_that_is_no_evaluation_is_left_alone(evaluated, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    before = contents(evaluated)
    assert main([str(evaluated), "--out", str(tmp_path)]) == 2
    assert "contains no evaluation.json" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    assert contents(evaluated) == before


@pytest.mark.usefixtures("drawn_once")
def test_a_full_disk_leaves_the_run_as_it_was(small_run, tmp_path, monkeypatch, capsys):
    run = copied(small_run, tmp_path)
    before = contents(run)

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("train.evaluate.save._write_predictions", full)
    assert main([str(run), "--resamples", "200"]) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert contents(run) == before
    assert not (run / "evaluation").exists()
    assert not list(run.glob(".*"))


def test_a_risk_that_cannot_be_kept_is_refused(small_run, tmp_path, capsys):
    run = copied(small_run, tmp_path)
    before = contents(run)
    assert main([str(run), "--target-risk", "0.0001", "--resamples", "200"]) == 1
    assert "No abstention threshold can be certified for a risk of 0.0%" in capsys.readouterr().err
    assert contents(run) == before
    assert not (run / "evaluation").exists()


@pytest.mark.parametrize(
    "wrong", [["--target-risk", "0"], ["--target-risk", "1"], ["--resamples", "3"], ["--seed", "-1"]]
)
def test_values_of_no_sense_are_named(wrong, capsys):
    assert main(["run", *wrong]) == 2
    assert f"{wrong[0]} is {wrong[1]}, expected" in capsys.readouterr().err


def test_no_run_at_all(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([]) == 2
    assert "train one: python -m train" in capsys.readouterr().err
    assert main([str(tmp_path)]) == 2
    assert "it is not a finished run" in capsys.readouterr().err


@pytest.mark.slow
def test_what_train_writes_is_what_evaluate_reads(trained_run, tmp_path):
    run = copied(trained_run, tmp_path)
    assert main([str(run), "--resamples", "200"]) == 0
    found = json.loads((run / "evaluation" / "evaluation.json").read_text())
    figures = read_record(trained_run)["metrics"]
    assert found["slices"]["accuracy"]["value"] == pytest.approx(figures["accuracy"])
    assert found["data"]["patients"] == figures["patients"]
    assert found["data"]["patients_told_by"] == "source"
    assert (run / "MODEL_CARD.md").stat().st_size > 3000


@pytest.mark.slow
def test_what_was_fitted_is_in_the_bundle_and_applied_after_every_backend(evaluated, tmp_path):
    from stageproof.export.__main__ import main as export
    from stageproof.runtime import Predictor, backends
    from stageproof.runtime.bundle.manifest import read_manifest

    bundle = tmp_path / "bundle"
    assert export([str(evaluated), "--to", "onnx", "torchscript", "--parity-images", "64", "--out", str(bundle)]) == 0
    record, manifest = read_record(evaluated), read_manifest(bundle)
    assert manifest.model.temperature == record["temperature"] != 1
    assert manifest.model.abstain_below == record["abstain_below"]
    assert "MODEL_CARD.md" in [document.file for document in manifest.documents]
    assert (bundle / "MODEL_CARD.md").read_bytes() == (evaluated / "MODEL_CARD.md").read_bytes()
    with (evaluated / "evaluation" / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))[::20]
    logits = np.array([[float(row[f"logit_{label}"]) for label in LABELS] for row in rows])
    expected = probabilities(logits, record["temperature"])
    images = [slices_of(evaluated) / row["name"] for row in rows]
    served = [name for name in ("onnx", "openvino", "torchscript") if name in backends.available()]
    assert "onnx" in served
    for name in served:
        answers = Predictor(bundle, backend=name, guard=False, trust_code=True).predict_batch(images)
        found = np.array([[answer.probabilities[label] for label in LABELS] for answer in answers])
        assert np.abs(found - expected).max() < 2e-4, name
