"""A run that version 0.1 wrote (`tests/data/run-0.1`, a network of 500 weights) loads, evaluates and exports."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from stageproof.export.data.comparison import preprocessed
from stageproof.export.reference.model import from_run
from stageproof.runtime import Predictor
from stageproof.train.data.phantom import phantom_samples, slices
from tests import tiny

OLD = Path(__file__).parents[1] / "data" / "run-0.1"
LOGITS = OLD.with_name("run-0.1-logits.json")
"""Of version 0.1, for the phantoms below."""


@pytest.fixture
def run(tmp_path):
    with tiny.known():
        yield Path(shutil.copytree(OLD, tmp_path / "run-0.1"))


def test_its_logits_are_those_of_version_0_1(run):
    reference = from_run(run)
    samples = phantom_samples(patients=2, slices=2, size=64, seed=5)
    with torch.inference_mode():
        logits = reference.model(torch.from_numpy(preprocessed(samples, reference.info.input))).numpy()
    assert np.allclose(logits, json.loads(LOGITS.read_text()), rtol=0, atol=1e-5)


def test_it_evaluates_exports_and_predicts(run, tmp_path, scan, monkeypatch):
    from stageproof.export.__main__ import main as export
    from stageproof.train.evaluate.__main__ import main as evaluate

    monkeypatch.setattr(slices, "draw_slice", cache(slices.draw_slice))  # both draw the same 576 slices
    assert evaluate([str(run), "--resamples", "200", "--out", str(tmp_path / "evaluation")]) == 0
    temperature = json.loads((run / "run.json").read_text())["temperature"]
    assert temperature != json.loads((OLD / "run.json").read_text())["temperature"] == 1
    assert from_run(run).info.temperature == temperature
    assert export([str(run), "--to", "onnx", "--out", str(tmp_path / "bundle"), "--parity-images", "64"]) == 0
    predictor = Predictor(tmp_path / "bundle", backend="onnx", guard=False)
    assert predictor.predict(scan).probabilities
