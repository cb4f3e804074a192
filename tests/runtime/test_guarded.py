"""A Predictor with a guard says nothing of what is no such slice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stageproof.runtime import Predictor, read_image
from tests.runtime.negatives import chest, text


def test_a_guarded_predictor_gives_no_stage_to_a_stranger(guarded: Predictor, phantoms) -> None:
    assert guarded.guarded
    slices = guarded.predict_batch(phantoms.images)
    assert np.mean([prediction.status == "ok" for prediction in slices]) > 0.95
    assert set(slices[0].guard) == set(guarded._guard.thresholds)
    for image in (text(), Image.new("L", (64, 64)), read_image(phantoms.images[0]).transpose(1)):
        prediction = guarded.predict(image)
        assert prediction.status == "rejected"
        assert (prediction.label, prediction.probability, dict(prediction.probabilities)) == (None, None, {})
        assert prediction.code in prediction.guard
        assert prediction.timings.inference_ms == 0.0


def test_rejected_slices_do_not_shift_their_neighbours(guarded: Predictor, phantoms) -> None:
    good = [image for image in phantoms.images[:20] if guarded.predict(image).status == "ok"][:6]
    mixed = [text(), good[0], good[1], Image.new("L", (9, 9)), b"", *good[2:], chest()]
    results = guarded.predict_batch(mixed, batch_size=3)
    assert [result.status for result in results] == [
        *("rejected", "ok", "ok", "rejected", "rejected", "ok", "ok", "ok", "ok", "rejected")
    ]
    answered = [result for result in results if result.status == "ok"]
    for result, image in zip(answered, good, strict=True):
        assert result.probabilities == pytest.approx(dict(guarded.predict(image).probabilities), abs=1e-5)


def test_the_guard_can_be_turned_off_for_measuring(guarded_bundle: Path) -> None:
    predictor = Predictor(guarded_bundle, backend="onnx", guard=False)
    assert not predictor.guarded
    assert predictor.predict(Image.new("L", (64, 64))).status == "ok"
