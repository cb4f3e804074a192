"""An epoch is selected on patients of its own: neither trained on, nor those whose figures are reported."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
from torch import nn

from stageproof.runtime.errors import DatasetError
from stageproof.train.__main__ import main
from stageproof.train.data.batches import Batches
from stageproof.train.data.splits import split_slices, with_selection
from stageproof.train.engine.hooks import Hooks
from stageproof.train.engine.loop import Objective, predict, run_stage
from stageproof.train.engine.stage import StageState
from stageproof.train.evaluate.__main__ import main as evaluate_main
from stageproof.train.recipes import Stage
from stageproof.train.runs.record import read_record
from stageproof.train.runs.selection import on_evaluated, selection_sentence
from tests.train.small_networks import SMALLEST

pytestmark = pytest.mark.usefixtures("drawn_once")


def dealt(people: int, seed: int = 0, folds: int = 5, slices: int = 4):
    groups = np.repeat(np.arange(people), slices)
    labels = np.random.default_rng(seed).permutation(np.arange(people) % 4)[groups]
    split = split_slices(labels, groups, folds=folds, fold=0, seed=seed)
    return with_selection(split, labels, groups, by="patient", folds=folds, seed=seed, unit="patients"), labels, groups


@pytest.mark.parametrize("folds", [2, 5, 8])
def test_the_three_parts_have_nobody_in_common(folds):
    split, labels, groups = dealt(48, folds=folds)
    parts = [split.training, split.selection, split.validation]
    people = [set(groups[part]) for part in parts]
    assert sorted(np.concatenate(parts)) == list(range(len(labels)))
    assert sum(map(len, people)) == 48
    assert len(people[1]) >= 5
    assert all(set(labels[part]) == {0, 1, 2, 3} for part in parts)


def test_too_few_people_for_a_third_part_are_refused_with_what_to_do():
    with pytest.raises(DatasetError, match=r"16 patients .* give 4\. Leave --keep and --patience out"):
        dealt(20)


@pytest.mark.parametrize("how", [["--keep", "loss"], ["--keep", "patient_accuracy", "--patience", "1"]], ids="-".join)
def test_a_run_says_on_whom_it_selected_and_they_are_not_those_it_reports(few_slices, tmp_path, how):
    words = ["--data", str(few_slices), "--recipe", "resnet34-gray", *SMALLEST, "--image-size", "32", "--fold", "1/5"]
    words += ["--groups", str(few_slices / "groups.csv"), *how, "--full.epochs", "1" if len(how) == 2 else "3"]
    assert main([*words, "--device", "cpu", "--precision", "fp32", "--out", str(tmp_path / "run")]) == 0
    record = read_record(tmp_path / "run")
    with (tmp_path / "run" / "split.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    people = {side: {row["patient"] for row in rows if row["side"] == side} for side in ("training", "selection")}
    held = {row["patient"] for row in rows if row["side"] == "validation"}
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    if "--patience" in how:  # the first epoch that is no better is the last
        values = [line["validation_patient_accuracy"] for line in lines]
        assert all(later > max(values[:at]) for at, later in enumerate(values[:-1]) if at)
        assert len(values) == 3 or values[-1] <= max(values[:-1])
    assert record["split"]["selected_on"] == "selection"
    assert record["split"]["selection"] == {"slices": 8, "patients": 8}
    assert len(people["selection"]) == 8
    assert not held & (people["training"] | people["selection"])
    assert record["metrics"]["slices"] == len(held) == 8
    assert "selected on 8 slices of 8 patients that are in neither" in selection_sentence(record)
    assert not on_evaluated(record, own=True)
    assert evaluate_main([str(tmp_path / "run"), "--resamples", "200"]) == 0
    facts = json.loads((tmp_path / "run" / "evaluation" / "evaluation.json").read_text())
    assert facts["data"]["slices"] == 8
    assert not facts["selected_on_evaluated"]
    assert not any("SELECTED" in warning for warning in facts["warnings"])


def test_a_run_of_before_says_that_it_selected_on_what_it_reports():
    old = {"recipe": {"keep": "accuracy", "patience": 0}, "split": {"by": "patient", "fold": "1/5"}}
    assert on_evaluated(old, own=True)
    assert not on_evaluated(old, own=False)
    assert selection_sentence(old) == "The epoch was selected on the slices that the run held out."
    assert not on_evaluated({"recipe": {"keep": "last", "patience": 0}, "split": {}}, own=True)


def reported(seed: int, third: bool, epochs: int = 10) -> float:
    """Accuracy on the people held out of 32, without any signal, by the epoch of the best accuracy.

    third: selected on the third part, as runs do; without it on the people held out, as before.
    """
    split, labels, groups = dealt(32, seed, slices=2)
    if not third:
        split = split_slices(labels, groups, folds=5, fold=0, seed=seed)
    rng = np.random.default_rng(seed)
    faces = rng.normal(size=(32, 6))[groups] + 0.3 * rng.normal(size=(len(groups), 6))
    features, truth = torch.from_numpy(faces).float(), torch.from_numpy(labels)

    def side(rows: np.ndarray) -> Batches:
        return Batches(features, truth, None, 32, chosen=torch.from_numpy(rows), seed=seed)

    def measure(logits: np.ndarray, known: np.ndarray) -> dict[str, float]:
        right = float((logits.argmax(1) == known).mean())
        return {"loss": 1.0, "accuracy": right, "balanced_accuracy": right}

    torch.manual_seed(seed)
    model = nn.Linear(6, 4)
    hooks = Hooks(
        measure=measure,
        on_step=lambda step: None,
        on_epoch=lambda epoch: None,
        checkpoint=lambda: None,
        due=lambda: False,
        last_good=lambda: "",
        stop=lambda: False,
        worthwhile=lambda: False,
    )
    state = StageState(model, torch.optim.SGD(model.parameters(), 3.0), device_type="cpu", fp16=False, ema=0.0)
    watched = side(split.selection if third else split.validation)
    run_stage(
        "full",
        Stage(epochs, 3.0, augment=False),
        model,
        model,
        state,
        side(split.training),
        watched,
        objective=Objective(),
        hooks=hooks,
        keep="accuracy",
    )
    logits, known = predict(model, side(split.validation))
    return float((logits.argmax(1) == known).mean())


def test_selecting_on_those_reported_raises_the_figure_and_a_third_part_does_not():
    before, now = (np.mean([reported(seed, third) for seed in range(20)]) for third in (False, True))
    assert before > 0.25 + 0.06
    assert now < before - 0.05


@pytest.mark.slow
def test_without_signal_the_figure_reported_is_the_truth():
    found = [reported(seed, third=True) for seed in range(1500)]
    assert np.mean(found) == pytest.approx(0.25, abs=0.01)
