"""`Predictor(optimize_for=…)`: the engine is loaded once in that mode, and both modes give the same results."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stageproof.runtime import BackendError, InputError, Predictor, backends, preprocess, read_image
from stageproof.runtime.inference.engine_settings import MODES
from stageproof.runtime.inference.self_test import self_test_tolerance
from tests.runtime.conftest import SERVED

MANY = 600
"""More than any stream length after which an earlier version loaded a second engine."""


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """(threads, concurrent calls) of every engine that is loaded."""
    real, found = backends.load, []

    def load(name: str, model: Any, **settings: Any) -> backends.Backend:
        found.append((settings["threads"], settings["concurrent_calls"]))
        return real(name, model, **settings)

    monkeypatch.setattr(backends, "load", load)
    return found


def table(predictor: Predictor, images: list[bytes]) -> np.ndarray:
    """(N, classes) probabilities of a stream."""
    return np.array([list(one.probabilities.values()) for one in predictor.stream(images)])


@pytest.mark.parametrize("form", SERVED)
def test_both_modes_give_the_same_results_in_every_backend(
    bundle: Path, other_formats: Path, phantoms, form: str
) -> None:
    form, _, backend = form.partition(" in ")
    folder = bundle if form in ("onnx", "torchscript") else other_formats
    results = {}
    for mode in MODES:
        predictor = Predictor(
            folder, backend=backend, guard=False, threads=2, trust_code=True, optimize_for=mode, self_test=True
        )
        assert (predictor.optimize_for, predictor.concurrent_calls) == (mode, MODES.index(mode) + 1)
        results[mode] = table(predictor, phantoms.images[:48])
        single = np.array(list(predictor.predict(phantoms.images[0]).probabilities.values()))
        assert np.abs(results[mode][0] - single).max() <= self_test_tolerance(predictor._serving)
    assert results["latency"].shape == (48, 4)
    assert np.ptp(results["latency"], axis=0).max() > 0.01, "the images differ, so equal results mean something"
    difference = np.abs(results["latency"] - results["throughput"]).max()
    assert difference <= self_test_tolerance(predictor._serving)
    assert (results["latency"].argmax(1) == results["throughput"].argmax(1)).all()


@pytest.mark.parametrize("mode", MODES)
def test_the_engine_is_loaded_once_in_the_constructor(
    bundle: Path, phantoms, loaded: list[tuple[int, int]], mode: str
) -> None:
    predictor = Predictor(bundle, backend="onnx", guard=False, threads=2, optimize_for=mode)  # type: ignore[arg-type]
    once = [(2, 1 if mode == "latency" else 2)]
    assert loaded == once
    images = (phantoms.images * (MANY // len(phantoms.images) + 1))[:MANY]
    assert len(predictor.predict_batch(images)) == MANY
    predictor.predict_study(images[:80])
    assert loaded == once


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("known", [True, False])
def test_a_stream_has_the_same_batches_every_time(
    bundle: Path, phantoms, monkeypatch: pytest.MonkeyPatch, mode: str, known: bool
) -> None:
    predictor = Predictor(bundle, backend="onnx", guard=False, threads=2, optimize_for=mode)  # type: ignore[arg-type]
    size, images = predictor._serving.batch_size, phantoms.images[:40] * 5
    real, counting, seen = predictor._serving.engine.run, threading.Lock(), []

    def run(batch: np.ndarray) -> np.ndarray:
        with counting:
            seen.append(len(batch))
        return real(batch)

    monkeypatch.setattr(predictor._serving.engine, "run", run)
    expected = sorted([size] * (200 // size) + [200 % size] * (200 % size > 0))
    for _ in range(3):
        seen.clear()
        assert len(list(predictor.stream(images if known else iter(images)))) == 200
        assert sorted(seen) == expected


def test_throughput_runs_its_calls_at_once(bundle: Path, phantoms, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = Predictor(bundle, backend="onnx", guard=False, threads=2, optimize_for="throughput")
    real, together = predictor._serving.engine.run, threading.Barrier(2, timeout=120)

    def run(images: np.ndarray) -> np.ndarray:
        together.wait()  # fails unless two are here
        return real(images)

    monkeypatch.setattr(predictor._serving.engine, "run", run)
    assert len(predictor.predict_batch(phantoms.images[:24], batch_size=4)) == 24  # in three pairs


@pytest.mark.parametrize(("mode", "most"), [("latency", 1), ("throughput", 2)])
def test_streams_never_run_more_calls_than_the_engine_is_loaded_for(
    bundle: Path, phantoms, monkeypatch: pytest.MonkeyPatch, mode: str, most: int
) -> None:
    predictor = Predictor(bundle, backend="onnx", guard=False, threads=2, optimize_for=mode)  # type: ignore[arg-type]
    real, counting, busy, found = predictor._serving.engine.run, threading.Lock(), 0, 0

    def run(images: np.ndarray) -> np.ndarray:
        nonlocal busy, found
        with counting:
            busy += 1
            found = max(found, busy)
        try:
            return real(images)
        finally:
            with counting:
                busy -= 1

    monkeypatch.setattr(predictor._serving.engine, "run", run)
    with ThreadPoolExecutor(2) as callers:  # two streams of one Predictor share its calls
        streams = [phantoms.images[:40], phantoms.images[40:]]
        list(callers.map(lambda images: list(predictor.stream(images, batch_size=2, workers=6)), streams))
    assert 1 <= found <= most


def test_the_self_test_runs_in_the_mode(guarded_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine whose concurrent calls share memory passes one at a time and fails in throughput mode."""
    real = backends.load

    def load(name: str, model: Any, **settings: Any) -> backends.Backend:
        engine = real(name, model, **settings)
        run, shared, running = engine.run, [], threading.Barrier(settings["concurrent_calls"])

        def unsafe(images: np.ndarray) -> np.ndarray:
            if not self_testing:
                return run(images)
            running.wait(60)
            shared[:] = [images]  # the memory of a request, overwritten by whoever comes later
            running.wait(60)
            return run(shared[0])

        engine.run = unsafe  # type: ignore[method-assign]
        return engine

    monkeypatch.setattr(backends, "load", load)
    self_testing = False
    for mode in MODES:
        predictor = Predictor(guarded_bundle, backend="onnx", threads=2, optimize_for=mode)
        self_testing = True
        assert predictor.self_test().passed is (mode == "latency")
        self_testing = False


def test_one_thread_has_one_call(bundle: Path, loaded: list[tuple[int, int]]) -> None:
    predictor = Predictor(bundle, backend="onnx", guard=False, threads=1, optimize_for="throughput")
    assert (predictor.optimize_for, predictor.concurrent_calls, loaded) == ("throughput", 1, [(1, 1)])


def test_a_lone_artifact_has_both_modes(bundle: Path, phantoms, loaded: list[tuple[int, int]]) -> None:
    images = phantoms.images[:24]
    tables = [
        table(Predictor(bundle / "model.onnx", backend="onnx", guard=False, threads=2, optimize_for=mode), images)
        for mode in MODES
    ]
    assert loaded == [(2, 1), (2, 2)]
    assert np.abs(tables[0] - tables[1]).max() <= 1e-5


def test_another_mode_is_refused_before_anything_is_loaded(bundle: Path, loaded: list[tuple[int, int]]) -> None:
    with pytest.raises(InputError, match="optimize_for is 'speed', expected 'latency' or 'throughput'"):
        Predictor(bundle, optimize_for="speed")  # type: ignore[arg-type]
    assert loaded == []


@pytest.mark.parametrize(("at", "positions"), [(9, "Images 8 to 11"), (12, "Image 12")])
def test_an_engine_that_fails_names_the_images(
    bundle: Path, phantoms, monkeypatch: pytest.MonkeyPatch, at: int, positions: str
) -> None:
    predictor = Predictor(bundle, backend="onnx", guard=False, threads=2, optimize_for="throughput")
    expected = [one.label for one in predictor.stream(phantoms.images[:13])]
    real, bad = predictor._serving.engine.run, []
    images = list(phantoms.images[:13])

    def run(batch: np.ndarray) -> np.ndarray:
        if any(np.array_equal(row, bad[0]) for row in batch):
            raise RuntimeError("device lost")
        return real(batch)

    bad.append(preprocess(read_image(images[at]), predictor.model.input))
    monkeypatch.setattr(predictor._serving.engine, "run", run)
    got: list[str | None] = []
    with pytest.raises(
        BackendError, match=rf"^{positions}, counted from 0: onnxruntime .* failed on a batch of \d: dev"
    ):
        got.extend(one.label for one in predictor.stream(images, batch_size=4))
    assert got == expected[: at // 4 * 4], "all earlier images have their predictions"


@pytest.mark.parametrize("backend", [name for name in ("onnx", "openvino") if name in backends.available()])
def test_throughput_is_tuned_by_throughput(
    bundle: Path, backend: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real, calls = backends.load, []

    def load(name: str, model: Any, **settings: Any) -> backends.Backend:
        engine = real(name, model, **settings)
        run = engine.run
        engine.run = lambda images: (calls.append((settings["concurrent_calls"], images)), run(images))[1]  # type: ignore[method-assign]
        return engine

    monkeypatch.setattr(backends, "load", load)
    cache = tmp_path / "tuned.json"
    for mode, concurrent, size in (("latency", 1, 1), ("throughput", 2, None)):
        calls.clear()
        options: dict[str, Any] = {"guard": False, "threads": 2, "tune": cache, "optimize_for": mode}
        predictor = Predictor(bundle, backend=backend, **options)
        timed = calls[:-1]  # the last one is the warm-up of the engine that stays
        assert {count for count, _ in timed} == {concurrent}
        assert {len(images) for _, images in timed} == {size or predictor._serving.batch_size}
        assert all(images.any() for _, images in timed), "not timed on zeros"
        calls.clear()
        Predictor(bundle, backend=backend, **options)
        assert len(calls) == 1, "the times were cached"
