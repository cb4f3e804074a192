"""A bundle that version 0.1 wrote (`tests/data/bundle-0.1`) loads, answers and passes its self-test."""

from __future__ import annotations

from pathlib import Path

import pytest

from stageproof.runtime import Predictor, backends
from stageproof.runtime.bundle.verify import verified

OLD = Path(__file__).parents[1] / "data" / "bundle-0.1"
SERVED = [name for name in ("onnx", "openvino", "torchscript", "torch-export") if backends.missing(name) is None]


@pytest.mark.parametrize("backend", SERVED)
def test_it_answers_as_it_did(backend: str) -> None:
    predictor = Predictor(OLD, backend=backend, threads=1, trust_code=True)
    assert predictor.self_test().passed
    assert predictor.guarded
    assert predictor.model.labels == ("MildDemented", "ModerateDemented", "NonDemented", "VeryMildDemented")
    assert predictor.predict(OLD / "golden" / "00.png").probabilities


@pytest.mark.parametrize("backend", SERVED[:1])
def test_its_studies_are_the_mean_of_their_slices(backend: str) -> None:
    predictor = Predictor(OLD, backend=backend, threads=1, guard=False)
    images = sorted((OLD / "golden").glob("*.png"))
    found = predictor.predict_study(images)
    slices = predictor.predict_batch(images)
    mean = sum(one.probabilities["MildDemented"] for one in slices) / len(slices)
    assert found.probabilities["MildDemented"] == pytest.approx(mean)
    assert found.method == "mean"


def test_what_it_does_not_record_is_not_made_up() -> None:
    manifest = verified(OLD)
    assert manifest.labels_from is None
    assert manifest.model.temperature == 1.25
    assert manifest.model.abstain_below == 0.375
    assert manifest.model.study is None
    assert {artifact.format for artifact in manifest.artifacts} == {
        "onnx",
        "openvino",
        "torchscript",
        "torch-export",
        "pytorch",
    }
