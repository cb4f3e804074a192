"""Each stage is charged its own time: what is planted in one shows up there and nowhere else."""

from __future__ import annotations

import itertools
import threading
import time
from types import SimpleNamespace

import pytest

from stageproof.benchmarks.contenders.predictor import load
from stageproof.benchmarks.inference.images import jpegs
from stageproof.benchmarks.machine import circumstances as machine
from stageproof.benchmarks.records.schema import STAGES
from stageproof.runtime.guard.ood_guard import Guard, fit
from stageproof.runtime.images.raster import read_image
from stageproof.runtime.inference import input_batches as pipeline

PLANTED_MS = 30.0
NOW = SimpleNamespace(seconds=0.0)


@pytest.fixture(scope="module")
def images():
    return jpegs(32)


@pytest.fixture
def ours(bundle, images):
    loaded = load(bundle, "onnx", "fp32", "cpu", 1)
    for image in images[:3]:
        loaded.answer(image)
    return loaded


@pytest.fixture
def clock(monkeypatch):
    """A clock that moves only when a planted function is called."""
    monkeypatch.setattr(NOW, "seconds", 100.0)
    monkeypatch.setattr(time, "perf_counter", lambda: NOW.seconds)


def planted(function):
    """The function, which takes PLANTED_MS by `clock`."""

    def slowly(*arguments, **options):
        NOW.seconds += PLANTED_MS / 1e3
        return function(*arguments, **options)

    return slowly


def plant_in_read(ours, monkeypatch):
    monkeypatch.setattr(pipeline, "read_all", planted(pipeline.read_all))


def plant_in_resizing(ours, monkeypatch):
    monkeypatch.setattr(pipeline, "resized", planted(pipeline.resized))


def plant_in_normalising(ours, monkeypatch):
    monkeypatch.setattr(pipeline, "normalise_all", planted(pipeline.normalise_all))


def plant_in_guard(ours, monkeypatch):
    monkeypatch.setattr(Guard, "scores_of", planted(Guard.scores_of))


def plant_in_compute(ours, monkeypatch):
    monkeypatch.setattr(ours._engine._inner, "run", planted(ours._engine._inner.run))


def plant_in_post(ours, monkeypatch):
    answers = ours.predictor._answers
    monkeypatch.setattr(answers, "prediction", planted(answers.prediction))


PLANTS = [
    ("read", plant_in_read),
    ("guard", plant_in_guard),
    ("preprocess", plant_in_resizing),
    ("preprocess", plant_in_normalising),
    ("compute", plant_in_compute),
    ("post", plant_in_post),
]


@pytest.mark.parametrize(("stage", "plant"), PLANTS)
def test_time_planted_in_a_stage_shows_up_in_it_and_nowhere_else(bundle, images, stage, plant, monkeypatch, clock):
    if stage == "guard":
        guard = fit((read_image(image) for image in images), list(range(len(images))))
        monkeypatch.setattr("runtime.predictor.open_bundle", _with(guard))
    ours = load(bundle, "onnx", "fp32", "cpu", 1)
    plant(ours, monkeypatch)
    for image in images[:3]:
        ours.answer(image)
        assert ours.stages == pytest.approx({name: PLANTED_MS * (name == stage) for name in STAGES}, abs=1e-6)


def _with(guard):
    from dataclasses import replace

    from stageproof.runtime.inference.loading import open_bundle

    return lambda *arguments: replace(open_bundle(*arguments), guard=guard)


def test_the_stages_add_up_to_the_answer(ours, images, monkeypatch):
    """By a clock that moves by a millisecond whenever somebody looks at it: but for the test's own two looks, all."""
    looks = itertools.count(0, 1e-3)
    monkeypatch.setattr(time, "perf_counter", lambda: next(looks))
    begun = time.perf_counter()
    ours.answer(images[5])
    spent = (time.perf_counter() - begun) * 1e3
    assert set(ours.stages) == set(STAGES)
    assert min(ours.stages.values()) >= 0
    assert spent > 6
    assert sum(ours.stages.values()) == pytest.approx(spent - 2)


def test_one_answer_is_that_of_the_predictor_and_of_a_batch(ours, images):
    expected = ours.predictor.predict(images[0]).probabilities
    answer = ours.answer(images[0])
    assert answer == [expected[label] for label in ours.predictor.model.labels]
    assert ours.answer_all(images[:4])[0] == pytest.approx(answer, abs=1e-5)


def test_the_engine_is_timed_alone(ours, images):
    times = ours.engine(images, 30, 4, 3)
    assert len(times) == 3
    assert min(times) > 0


@pytest.mark.parametrize(("mode", "calls"), [("latency", 1), ("throughput", 2)])
def test_the_engine_alone_runs_as_many_calls_as_it_was_loaded_for(bundle, images, mode, calls, monkeypatch):
    loaded = load(bundle, "onnx", "fp32", "cpu", 2, mode)
    assert loaded.predictor.concurrent_calls == calls
    real, together, seen = loaded.predictor.logits, threading.Barrier(calls, timeout=60), []

    def logits(rows):
        together.wait()  # fails unless all are here
        seen.append(len(rows))
        return real(rows)

    monkeypatch.setattr(loaded.predictor, "logits", logits)
    assert loaded.engine_stream(images, 48, 8) > 0
    assert seen == [8] * (calls + 6), "an untimed one for each call before"


def test_requests_are_served_and_streams_are_counted(ours, images):
    served = ours.serve(images, 100, 0.3, 8)
    assert served["lost"] == 0
    assert len(served["latencies_ms"]) >= 10
    seconds, held = ours.work(images, 40, 8)
    assert seconds > 0
    assert 0 < held < machine._memory()
