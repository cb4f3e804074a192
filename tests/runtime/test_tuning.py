"""Tuning: the fastest here serves, whatever export measured, and what was measured is remembered where one says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from stageproof.runtime import BackendError, Predictor, backends
from stageproof.runtime.bundle.manifest import read_manifest
from stageproof.runtime.inference.engine_settings import EngineSettings
from stageproof.runtime.inference.selection import candidates
from stageproof.runtime.inference.tuning import rank_candidates


class Engine:
    """Takes as long as it is told."""

    def __init__(self, seconds: float, clock: list[float]) -> None:
        self.seconds, self.clock = seconds, clock

    def run(self, images: np.ndarray) -> np.ndarray:
        self.clock[0] += self.seconds
        return np.zeros((len(images), 4), np.float32)


@pytest.fixture
def race(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Callable:
    """Rank the bundle's candidates where each backend takes the given seconds, or cannot run."""
    clock = [0.0]
    monkeypatch.setattr("runtime.inference.tuning.time.perf_counter", lambda: clock[0])
    manifest = read_manifest(bundle)

    def rank(seconds: dict[str, float | None], cache: Path | None = None, threads: int = 1) -> list[str]:
        loaded.clear()

        def load(candidate):
            loaded.append(candidate.check.backend)
            if seconds[candidate.check.backend] is None:
                raise BackendError("no such device")
            return Engine(seconds[candidate.check.backend], clock)

        order = rank_candidates(
            manifest, candidates(manifest, None, None), load, EngineSettings(threads=threads), cache
        )
        return [candidate.check.backend for candidate in order]

    loaded: list[str] = []
    rank.loaded = loaded
    return rank


def test_the_fastest_here_comes_first(race: Callable) -> None:
    assert race({"openvino": 0.3, "onnx": 0.1, "torchscript": 0.2}) == ["onnx", "openvino", "torchscript"]
    assert race({"openvino": 0.3, "onnx": None, "torchscript": 0.2}) == ["openvino", "onnx", "torchscript"]


def test_what_was_measured_is_remembered(race: Callable, tmp_path: Path) -> None:
    cache = tmp_path / "tuning.json"
    first = race({"openvino": 0.3, "onnx": None, "torchscript": 0.2}, cache)
    assert sorted(race.loaded) == ["onnx", "openvino", "torchscript"]
    assert race({"openvino": 0.1, "onnx": 0.1, "torchscript": 0.9}, cache) == first
    assert race.loaded == []
    assert race({"openvino": 0.1, "onnx": 0.2, "torchscript": 0.9}, cache, 8)[0] == "openvino"
    assert len(json.loads(cache.read_text(encoding="utf-8"))) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["tuning.json"]


@pytest.mark.parametrize("content", [b"", b"[1]", b"\xff", b'{"x": 3}'])
def test_a_broken_cache_costs_a_measurement_only(race: Callable, tmp_path: Path, content: bytes) -> None:
    cache = tmp_path / "tuning.json"
    cache.write_bytes(content)
    times = {"openvino": 0.3, "onnx": 0.1, "torchscript": 0.2}
    assert race(times, cache)[0] == "onnx"
    assert race(times, cache)[0] == "onnx"
    assert race.loaded == []
    assert race(times, tmp_path / "none" / "tuning.json")[0] == "onnx"


def test_a_tuned_predictor_answers_as_any(bundle: Path, scan: Path, tmp_path: Path) -> None:
    plain = Predictor(bundle, guard=False).predict(scan)
    for tune in (True, tmp_path / "tuning.json", tmp_path / "tuning.json"):
        tuned = Predictor(bundle, guard=False, tune=tune)
        assert tuned.backend in backends.available()
        assert tuned.predict(scan).probabilities == pytest.approx(dict(plain.probabilities), abs=1e-4)
