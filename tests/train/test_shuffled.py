"""A control run: trained on shuffled labels it must be at chance on people held out, and it goes nowhere."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from stageproof.export.__main__ import main as export
from stageproof.runtime.errors import InputError
from stageproof.train.__main__ import main as train
from stageproof.train.config.command_line import parse
from stageproof.train.data.phantom.__main__ import main as write_phantoms
from stageproof.train.data.splits import shuffled_labels
from stageproof.train.evaluate.__main__ import main as evaluate
from stageproof.train.metrics.classification import stages
from stageproof.train.runs.record import read_record
from tests.train.small_networks import SMALLEST

pytestmark = pytest.mark.usefixtures("drawn_once")


def test_labels_are_permuted_among_all_patients():
    rng = np.random.default_rng(0)
    groups = rng.permutation(np.repeat(np.arange(40), 3))
    labels = groups % 4
    given = shuffled_labels(labels, groups, seed=1)
    before, after = (stages(values, groups) for values in (labels, given))
    assert np.array_equal(given, after[groups])  # one label a patient
    assert np.array_equal(np.bincount(before), np.bincount(after))
    assert 0.4 < (before != after).mean() < 1
    assert np.array_equal(given, shuffled_labels(labels, groups, seed=1))
    assert not np.array_equal(given, shuffled_labels(labels, groups, seed=2))


@pytest.fixture(scope="module")
def control(small_run, tmp_path_factory) -> Path:
    """A run of one epoch on shuffled labels, of people that a file tells apart."""
    root = tmp_path_factory.mktemp("control")
    data = Path(read_record(small_run)["options"]["data"])
    names = [f"{file.parent.name}/{file.name}" for file in sorted(data.rglob("*.png"))]
    (root / "ids.csv").write_text("file,group\n" + "".join(f"{name},{name.partition('/')[2][:4]}\n" for name in names))
    words = ["--data", str(data), "--groups", str(root / "ids.csv"), "--recipe", "resnet34-gray", "--image-size", "32"]
    words += [
        *SMALLEST,
        "--full.epochs",
        "1",
        "--precision",
        "fp32",
        "--device",
        "cpu",
        "--fold",
        "1/2",
        "--shuffle-labels",
        "3",
    ]
    assert train([*words, "--out", str(root / "run")]) == 0
    return root / "run"


def test_people_of_both_parts_have_other_labels(control):
    assert read_record(control)["split"]["shuffled_labels"] == 3
    with (control / "split.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    changed = {
        side: [r["label"] != r["name"].split("/")[0] for r in rows if r["side"] == side]
        for side in ("training", "validation")
    }
    assert np.mean(changed["validation"]) > 0.5
    assert np.mean(changed["training"]) > 0.5


def test_the_control_is_shouted_judged_and_not_exported(control, capsys):
    assert evaluate([str(control), "--resamples", "200"]) == 0
    said = capsys.readouterr()
    assert (
        "CONTROL: this run was trained on shuffled labels. Its metrics should be at chance (permutation test: p = "
        in (said.err)
    )
    assert "export" not in said.out
    assert not (control / "MODEL_CARD.md").exists()
    assert read_record(control)["temperature"] == 1.0
    facts = json.loads((control / "evaluation" / "evaluation.json").read_text())
    assert facts["control"]["shuffled_labels"] == 3
    assert export([str(control), "--to", "onnx", "--out", str(control.parent / "bundle")]) == 2
    assert "is a control, trained on shuffled labels: it is not exported" in capsys.readouterr().err
    assert not (control.parent / "bundle").exists()


def test_a_control_that_tells_people_held_out_fails(small_run, tmp_path, capsys):
    """As if it had been shuffled: a network that tells people held out, and says it learned from shuffled labels."""

    run = Path(shutil.copytree(small_run, tmp_path / "run", copy_function=os.link))
    record = json.loads((run / "run.json").read_text())
    record["split"]["shuffled_labels"] = 0
    (run / "run.json").unlink()
    (run / "run.json").write_text(json.dumps(record))
    assert evaluate([str(run), "--resamples", "200"]) == 1
    assert "p = 0.001" in capsys.readouterr().err


def test_a_seed_below_zero_is_refused():
    with pytest.raises(InputError, match="--shuffle-labels is -1, expected 0 or more"):
        parse(["--shuffle-labels", "-1"])


@pytest.mark.slow
def test_a_network_that_learns_tells_people_held_out_from_true_labels_and_not_from_shuffled_ones(tmp_path, capsys):
    data = tmp_path / "slices"
    assert write_phantoms(["--out", str(data), "--size", "64", "--patients", "12", "--slices", "12"]) == 0
    ids = ["file,group", *(f"{f.parent.name}/{f.name},{f.name[:4]}-{f.parent.name}" for f in data.rglob("*.png"))]
    (tmp_path / "ids.csv").write_text("\n".join(ids))
    words = ["--data", str(data), "--groups", str(tmp_path / "ids.csv"), "--recipe", "resnet34-gray", "--device", "cpu"]
    words += ["--image-size", "48", "--fold", "1/3", "--full.epochs", "12", "--full.schedule", "one-cycle"]
    found = {}
    for name, more in (("true", []), ("shuffled", ["--shuffle-labels", "0"])):
        assert train([*words, *more, "--out", str(tmp_path / name)]) == 0
        assert evaluate([str(tmp_path / name), "--resamples", "200"]) == 0
        facts = json.loads((tmp_path / name / "evaluation" / "evaluation.json").read_text())
        learned = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        found[name] = (learned[-1]["accuracy"], facts["control"]["permutation"])
        capsys.readouterr()
    assert min(learned for learned, _ in found.values()) > 0.9  # both remember whom they were trained on
    assert found["true"][1]["p"] < 0.002
    assert found["shuffled"][1]["p"] > 0.01
    assert found["shuffled"][1]["score"] < found["true"][1]["score"] - 0.2
