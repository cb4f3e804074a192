"""Measures the Predictor's overhead over its engine: reading, guard, preprocessing, softmax and result objects."""

from __future__ import annotations

import statistics
import time
from itertools import cycle
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from stageproof.benchmarks.contenders.predictor import TimedPredictor
from stageproof.benchmarks.inference.images import jpegs
from stageproof.runtime import Predictor
from stageproof.runtime.predictor import DEFAULT_BUNDLE

BATCH = 32


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    """A Predictor with the default artifact. Its guard checks every image, and must accept all of `images`."""
    if not (Path(DEFAULT_BUNDLE) / "manifest.json").is_file():
        pytest.skip(f"no {DEFAULT_BUNDLE}/ here: python -m train, then python -m export")
    return Predictor()


@pytest.fixture(scope="module")
def images(predictor: Predictor) -> list[bytes]:
    """JPEGs that the guard accepts: rejected images are faster, since they do not reach the engine."""
    accepted = [image for image in jpegs(256) if predictor.predict(image).probabilities]
    if len(accepted) < 2 * BATCH:
        pytest.skip(f"the bundle's guard accepts {len(accepted)} of 256 phantoms: it was trained on other slices")
    return accepted[: len(accepted) // BATCH * BATCH]


def test_beside_the_engine(benchmark: BenchmarkFixture, predictor: Predictor, images: list[bytes]) -> None:
    """Bytes of a JPEG to a Prediction; `beside_engine_ms`: median time without the engine's run."""
    following = cycle(images)
    beside = []

    def predict() -> None:
        begun = time.perf_counter()
        prediction = predictor.predict(next(following))
        beside.append((time.perf_counter() - begun) * 1e3 - prediction.timings.inference_ms)

    benchmark(predict)
    benchmark.extra_info.update(beside_engine_ms=statistics.median(beside), guarded=predictor.guarded)


def test_stream_beside_the_engine(benchmark: BenchmarkFixture, images: list[bytes]) -> None:
    """A stream of JPEGs, optimised for throughput; `of_engine`: throughput relative to the engine alone on preprocessed
    batches, with as many calls at once.

    Stream and engine alternate, so that drift of the machine affects both; the result is the median ratio.
    """
    timed = TimedPredictor(Predictor(optimize_for="throughput"))
    ratios = []

    def turn() -> None:
        alone = timed.engine_stream(images, len(images), BATCH) * len(images) / 1e3
        begun = time.perf_counter()
        answered = sum(1 for _ in timed.predictor.stream(images, BATCH))
        ratios.append(alone / (time.perf_counter() - begun))
        assert answered == len(images)

    benchmark.pedantic(turn, rounds=5, warmup_rounds=1)
    benchmark.extra_info.update(of_engine=statistics.median(ratios), images=len(images))
