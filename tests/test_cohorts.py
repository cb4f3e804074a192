"""The whole chain on one phantom cohort: every layout of the data, with two, three, four and seven classes."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from stageproof.export.__main__ import main as export
from stageproof.runtime.__main__ import main as predict
from stageproof.runtime.softmax import probabilities
from stageproof.train.__main__ import main as train
from stageproof.train.audit.__main__ import main as audit
from stageproof.train.evaluate.__main__ import main as evaluate
from tests.cohort import LAYOUTS, SETS, class_folders, cohort, halves
from tests.train.test_layouts import PARTS

PEOPLE, SLICES = 8, 4
ONE_EPOCH = [
    *("--recipe", "demo", "--architecture", "resnet18", "--head-type", "linear", "--image-size", "32"),
    *("--head.epochs", "0", "--full.epochs", "1", "--fold", "1/2"),
]


def given(classes: int) -> list[str]:
    """The options that name the label set; none where it is recognised."""
    return ["--classes", ",".join(SETS[classes].names)] if classes == 7 else []


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("classes", SETS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_audited_trained_on_and_evaluated(layout: str, classes: int, tmp_path) -> None:
    if "dicom" in layout:
        pytest.importorskip("pydicom", reason="the extra dicom")
    slices, names = cohort(classes, PEOPLE, SLICES), SETS[classes].names
    data = LAYOUTS[layout](slices, tmp_path / "data")
    assert audit(["--data", str(data), *given(classes), "--out", "audit"]) == 0
    assert train(["--data", str(data), *given(classes), *ONE_EPOCH, "--out", "run"]) == 0
    record = json.loads(Path("run/run.json").read_text())
    assert (tuple(record["labels"]), tuple(record["clinical_order"])) == (names, names)
    assert tuple(record["positive"]) == SETS[classes].positive
    trained_on = halves(slices)["train"] if layout in PARTS else slices
    written = Counter(one.label for one in trained_on)
    assert record["data"]["slices_by_class"] == {name: written[name] for name in names}
    with Path("run/split.csv").open(newline="") as file:
        assert Counter(row["label"] for row in csv.DictReader(file)) == written
    assert evaluate(["run"]) == 0
    found = json.loads(Path("run/evaluation/evaluation.json").read_text())
    held = [found["data"]["slices_by_class"][name] for name in names]
    assert np.array(found["slices"]["confusion"]).sum(1).tolist() == held
    assert list(found["slices"]["classes"]) == list(names)
    if layout == "train and test folders":
        assert evaluate(["run", "--data", str(data / "test"), "--out", "test"]) == 0
        tested = json.loads(Path("test/evaluation.json").read_text())["data"]["slices_by_class"]
        counts = Counter(one.label for one in halves(slices)["test"])
        assert tested == {name: counts[name] for name in names}


@pytest.mark.slow
@pytest.mark.parametrize("classes", SETS)
def test_the_chain_keeps_the_order_of_the_classes(classes: int, tmp_path, capsys) -> None:
    """From the class folders to the Predictor: each slice has the probabilities that the evaluation has for it."""
    slices, names = cohort(classes, 80 // classes, SLICES), SETS[classes].names
    data = class_folders(slices, tmp_path / "data")
    learns = ["--recipe", "resnet34-gray", "--image-size", "32", "--full.epochs", "5"]
    learns += ["--full.learning-rate", "0.003"]
    assert train(["--data", str(data), *given(classes), *learns, "--fold", "1/2", "--out", "run"]) == 0
    assert evaluate(["run"]) == 0
    assert export(["run", "--to", "onnx"]) == 0
    with Path("run/evaluation/predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    table = np.array(json.loads(Path("run/evaluation/evaluation.json").read_text())["slices"]["confusion"])
    again = np.zeros_like(table)
    for row in rows:
        again[names.index(row["label"]), names.index(row["decision"])] += 1
    assert np.array_equal(again, table)
    manifest = json.loads(Path("bundle/manifest.json").read_text())["model"]
    assert (tuple(manifest["clinical_order"]), tuple(manifest["positive"])) == (names, SETS[classes].positive)
    capsys.readouterr()
    predict(["--bundle", "bundle", "--csv", *(str(data / row["name"]) for row in rows)])
    answered = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    # Not the probabilities of the file: they have the temperatures of the halves of a cross-fit.
    logits = np.array([[float(row[f"logit_{name}"]) for name in names] for row in rows])
    expected = probabilities(logits, manifest["temperature"])
    seen = 0
    for row, answer, chances in zip(rows, answered, expected, strict=True):
        assert answer["file"].endswith(row["name"])
        assert Path(row["name"]).parent.name == row["label"]
        if answer["status"] != "rejected":
            assert [float(answer[name]) for name in names] == pytest.approx(chances.tolist(), abs=1e-3)
            seen += 1
    assert seen > len(rows) / 2
