"""The golden images, replayed on the machine they are on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stageproof.runtime import BackendError, InputError, Predictor, backends
from stageproof.runtime.images import reader as reading
from stageproof.runtime.inference.self_test import self_test


def test_golden_images_agree_here(guarded_bundle: Path) -> None:
    for backend in ("onnx", None):
        result = Predictor(guarded_bundle, backend=backend, self_test=True, trust_code=True).self_test()
        assert result.passed
        assert result.images == 6
        assert result.max_probability_difference < result.tolerance == 1e-4
        assert json.loads(json.dumps(result.to_dict()))["flipped"] == 0


def test_golden_images_are_decoded_in_a_confined_process(guarded_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def here(*_: object) -> None:
        raise AssertionError("decoded in the host's process")

    monkeypatch.setattr(reading, "decoded", here)
    assert Predictor(guarded_bundle, backend="onnx").self_test().passed
    with pytest.raises(AssertionError, match="in the host's process"):
        Predictor(guarded_bundle, backend="onnx", isolate=False).self_test()


def test_an_engine_that_computes_differently_is_noticed(guarded_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = backends.load

    def load(name: str, path: Path, **settings: object) -> backends.Backend:
        backend = real(name, path, **settings)
        run = backend.run
        backend.run = lambda images: run(images) + np.array([0.01, 0, 0, 0], np.float32)
        return backend

    monkeypatch.setattr(backends, "load", load)
    result = Predictor(guarded_bundle, backend="onnx").self_test()
    assert not result.passed
    assert 1e-4 < result.max_probability_difference < 1e-2
    with pytest.raises(BackendError, match=r"self-test failed: 6 golden images, .* Do not use .*model\.onnx on this"):
        Predictor(guarded_bundle, backend="onnx", self_test=True)


@pytest.mark.parametrize(
    ("precision", "measured", "allowed", "expected"),
    [("int8", 0.007, 0.6, 0.1), ("int8", 0.2, 0.6, 0.4), ("int8", 0.5, 0.6, 0.6), ("fp32", 1e-7, 1e-4, 1e-4)],
)
def test_an_8_bit_artifact_is_held_to_what_export_measured(
    guarded_bundle: Path, precision: str, measured: float, allowed: float, expected: float
) -> None:
    serving = Predictor(guarded_bundle, backend="onnx")._serving
    check = replace(serving.check, parity={"max_probability_difference": measured, "tolerance": allowed})
    assert self_test(replace(serving, precision=precision, check=check)).tolerance == pytest.approx(expected)


def test_a_bundle_without_golden_images(copy: Path, edit: Callable) -> None:
    bundle = edit(lambda data: data.pop("golden", None))
    shutil.rmtree(bundle / "golden", ignore_errors=True)
    with pytest.raises(InputError, match="has no golden images, which"):
        Predictor(bundle, backend="onnx").self_test()
