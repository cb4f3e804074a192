"""Predictor on one image: what comes back, from every kind of source, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stageproof.runtime import ImageError, InputError, Prediction, Predictor


def test_a_prediction_is_complete(onnx_predictor: Predictor, scan: Path) -> None:
    prediction = onnx_predictor.predict(scan)
    assert prediction.status == "ok"
    assert (prediction.code, prediction.reason) == ("", "")
    assert list(prediction.probabilities) == ["NonDemented", "VeryMildDemented", "MildDemented", "ModerateDemented"]
    assert sum(prediction.probabilities.values()) == pytest.approx(1)
    assert (
        prediction.probability == max(prediction.probabilities.values()) == prediction.probabilities[prediction.label]
    )
    assert (
        prediction.cdr
        == {"NonDemented": 0, "VeryMildDemented": 0.5, "MildDemented": 1, "ModerateDemented": 2}[prediction.label]
    )
    assert prediction.model_digest == onnx_predictor.model.digest
    assert (prediction.backend, prediction.precision) == ("onnx", "fp32")
    assert min(prediction.timings.read_ms, prediction.timings.preprocess_ms, prediction.timings.inference_ms) > 0


def test_every_kind_of_source_gives_the_same(onnx_predictor: Predictor, scan: Path) -> None:
    pixels = np.asarray(Image.open(scan))
    sources = [
        scan,
        str(scan),
        scan.read_bytes(),
        scan.open("rb"),
        Image.open(scan),
        pixels,
        np.stack([pixels] * 3, -1),
    ]
    answers = {tuple(onnx_predictor.predict(source).probabilities.values()) for source in sources}
    sources[3].close()
    assert len(answers) == 1


def test_what_cannot_be_read_is_the_readers_error(onnx_predictor: Predictor, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no such file"):
        onnx_predictor.predict(tmp_path / "none.png")
    with pytest.raises(ImageError, match="expected a path"):
        onnx_predictor.predict(3)


def test_temperature_is_applied_and_changes_no_decision(
    onnx_predictor: Predictor, recalibrated: Callable, phantoms
) -> None:
    cold = Predictor(recalibrated(temperature=0.25), backend="onnx", guard=False)
    for image in phantoms.images[::12]:
        plain, sharp = onnx_predictor.predict(image), cold.predict(image)
        assert sharp.label == plain.label
        names = list(plain.probabilities)
        powers = np.array([plain.probabilities[name] for name in names]) ** 4
        assert [sharp.probabilities[name] for name in names] == pytest.approx(list(powers / powers.sum()), abs=1e-5)


def test_unsure_abstains(bundle: Path, recalibrated: Callable, scan: Path) -> None:
    sure = Predictor(bundle, backend="onnx", guard=False).predict(scan)
    for predictor in (
        Predictor(bundle, backend="onnx", guard=False, abstain_below=0.99),
        Predictor(recalibrated(abstain_below=0.99), backend="onnx", guard=False),
    ):
        answer = predictor.predict(scan)
        assert (answer.status, answer.code) == ("abstained", "unsure")
        assert (answer.label, answer.cdr, answer.probability) == (None, None, None)
        assert answer.probabilities == sure.probabilities
        assert "below the threshold of 99.0%" in answer.reason


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((3, 32, 32), np.float32),
        np.zeros((1, 1, 32, 32), np.float32),
        np.zeros((1, 3, 32, 31), np.float32),
        np.zeros((1, 3, 32, 32)),
        np.zeros((0, 3, 32, 32), np.float32),
        np.zeros((1, 3, 32, 32), np.uint8),
    ],
    ids=lambda images: f"{images.dtype}{images.shape}",
)
def test_other_shapes_and_types_are_refused(onnx_predictor: Predictor, images: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"images is \w+ of shape .*; this bundle expects float32 \(N, 3, 32, 32\)"):
        onnx_predictor.logits(images)


def test_predictions_survive_json(onnx_predictor: Predictor, scan: Path) -> None:
    for prediction in onnx_predictor.predict_batch([scan, b"broken"]):
        assert Prediction.from_dict(json.loads(json.dumps(prediction.to_dict()))) == prediction
