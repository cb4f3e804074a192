"""The engine that answers several batches at once: when it comes, and that it is the one that was checked."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from stageproof.runtime import Predictor, backends
from stageproof.runtime.bundle.manifest import read_manifest
from stageproof.runtime.inference import streaming as streams

SEVERAL = [name for name in backends.available() if backends.supports_concurrent_calls(name, "cpu")]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "PAYS_AFTER", 8)
    monkeypatch.setattr("runtime.predictor.SHORT", 4)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """`at_once` of every engine that is loaded."""
    real, loaded = backends.load, []

    def load(name: str, path: Path, **settings: int) -> backends.Backend:
        loaded.append(settings.get("at_once", 1))
        return real(name, path, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(backends, "load", load)
    return loaded


@pytest.mark.parametrize("backend", SEVERAL)
def test_it_comes_when_many_images_do_and_answers_the_same(
    bundle: Path, phantoms, backend: str, watched: list[int]
) -> None:
    predictor = Predictor(bundle, backend=backend, guard=False, threads=2)
    alone = [predictor.predict(image) for image in phantoms.images[:40]]
    predictor.predict_batch(phantoms.images[:8])
    assert watched == [1], "so few are not worth it"

    def ask(worker: int) -> None:
        got = predictor.predict_batch(phantoms.images[:40], batch_size=3 + worker)
        for one, other in zip(got, alone, strict=True):
            assert one.label == other.label
            assert one.probabilities == pytest.approx(dict(other.probabilities), abs=1e-5)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(ask, range(4)))
    assert watched == [1, 2], "loaded once, whoever asks"
    assert predictor._batches._several is not None


@pytest.mark.parametrize("backend", SEVERAL)
def test_it_answers_batches_side_by_side(bundle: Path, phantoms, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = Predictor(bundle, backend=backend, guard=False, threads=2)
    predictor.predict_batch(phantoms.images[:24], batch_size=4)
    several = predictor._batches._several
    assert several is not None
    real, together = several.engine.run, threading.Barrier(2, timeout=120)

    def run(images: np.ndarray) -> np.ndarray:
        together.wait()  # fails unless two are here
        return real(images)

    monkeypatch.setattr(several.engine, "run", run)
    assert len(predictor.predict_batch(phantoms.images[:24], batch_size=4)) == 24  # in three pairs


def test_few_images_are_answered_by_all_threads(bundle: Path, phantoms, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = Predictor(bundle, backend="onnx", guard=False, threads=2)
    predictor.predict_batch(phantoms.images[:24], batch_size=4)
    several = predictor._batches._several
    assert several is not None
    asked: list[int] = []
    monkeypatch.setattr(several.engine, "run", lambda images: asked.append(len(images)))
    assert len(predictor.predict_batch(phantoms.images[:4], batch_size=2)) == 4
    assert asked == []


def test_who_says_how_many_they_are_has_it_from_the_first_on(
    bundle: Path, phantoms, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = Predictor(bundle, backend="onnx", guard=False, threads=2)
    images = phantoms.images[:12]
    predictor.predict_batch(images * 2, batch_size=4)
    several = predictor._batches._several
    assert several is not None
    real, asked = several.engine.run, []

    def run(images: np.ndarray) -> np.ndarray:
        asked.append(len(images))
        return real(images)

    monkeypatch.setattr(several.engine, "run", run)
    for ask, many in (
        (lambda: predictor.predict_batch(images, batch_size=4), 12),
        (lambda: predictor.predict_study(images, batch_size=4).slices, 12),
        (lambda: predictor.predict_batch((image for image in images), batch_size=4), 8),  # known by the second batch
    ):
        assert len(ask()) == 12
        assert sum(asked) == many
        asked.clear()


def test_never_more_of_them_than_it_has_threads(bundle: Path, phantoms, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = Predictor(bundle, backend="onnx", guard=False, threads=2)
    predictor.predict_batch(phantoms.images[:24], batch_size=4)
    several = predictor._batches._several
    assert several is not None
    real, counting, busy, most = several.engine.run, threading.Lock(), 0, 0

    def run(images: np.ndarray) -> np.ndarray:
        nonlocal busy, most
        with counting:
            busy += 1
            most = max(most, busy)
        try:
            return real(images)
        finally:
            with counting:
                busy -= 1

    monkeypatch.setattr(several.engine, "run", run)
    list(predictor.stream(phantoms.images, batch_size=2, workers=6))
    assert most <= 2


def test_one_thread_has_nothing_to_share(bundle: Path, phantoms, watched: list[int]) -> None:
    predictor = Predictor(bundle, backend="onnx", guard=False, threads=1)
    predictor.predict_batch(phantoms.images[:24], batch_size=4)
    assert watched == [1]


def test_a_lone_artifact_whose_digest_nobody_stated_is_not_loaded_again(
    bundle: Path, phantoms, watched: list[int]
) -> None:
    predictor = Predictor(bundle / "model.onnx", backend="onnx", guard=False, threads=2)
    predictor.predict_batch(phantoms.images[:24], batch_size=4)
    assert watched == [1]


@pytest.mark.parametrize("backend", SEVERAL)
def test_a_file_that_was_changed_since_is_not_loaded(copy: Path, phantoms, backend: str, watched: list[int]) -> None:
    predictor = Predictor(copy, backend=backend, guard=False, threads=2)
    expected = predictor.predict(phantoms.images[0])
    content = bytearray(predictor.artifact.read_bytes())
    content[len(content) // 2] ^= 1
    predictor.artifact.unlink()
    predictor.artifact.write_bytes(content)
    answers = predictor.predict_batch(phantoms.images[:24], batch_size=4)
    assert watched == [1]
    assert answers[0].probabilities == pytest.approx(dict(expected.probabilities), abs=1e-5)


def test_the_weights_beside_an_xml_are_looked_at_too(other_formats: Path) -> None:
    if "openvino" not in backends.available():
        pytest.skip("openvino is not installed")
    predictor = Predictor(other_formats, backend="openvino", guard=False)
    again = predictor._serving.reread()
    assert again.weights == (other_formats / "model.bin").read_bytes()
    assert "model.bin" in [document.file for document in read_manifest(other_formats).documents]


def test_one_that_answers_otherwise_is_not_used(
    bundle: Path, phantoms, monkeypatch: pytest.MonkeyPatch, change: Callable[[np.ndarray], np.ndarray]
) -> None:
    predictor = Predictor(bundle, backend="onnx", guard=False, threads=2)
    expected = [predictor.predict(image).probabilities for image in phantoms.images[:24]]
    real = backends.load

    def load(name: str, path: Path, **settings: int) -> backends.Backend:
        engine = real(name, path, **settings)  # type: ignore[arg-type]
        run = engine.run
        engine.run = lambda images: change(run(images))  # type: ignore[method-assign]
        return engine

    monkeypatch.setattr(backends, "load", load)
    answers = predictor.predict_batch(phantoms.images[:24], batch_size=4)
    assert predictor._batches._second_tried
    assert predictor._batches._several is None
    for one, other in zip(answers, expected, strict=True):
        assert one.probabilities == pytest.approx(dict(other), abs=1e-5)


@pytest.fixture(params=["shifted", "not numbers", "failing"])
def change(request: pytest.FixtureRequest) -> Callable[[np.ndarray], np.ndarray]:
    def failing(logits: np.ndarray) -> np.ndarray:
        raise RuntimeError("device lost")

    changes: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "shifted": lambda logits: logits + np.float32([0.5, 0, 0, 0]),
        "not numbers": lambda logits: logits * np.nan,
        "failing": failing,
    }
    return changes[request.param]
