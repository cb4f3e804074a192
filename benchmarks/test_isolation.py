"""What it costs to decode in processes with limits (`Predictor(isolate=True)`), alone and in a stream.

    pytest benchmarks/test_isolation.py --benchmark-json out.json

Both ways alternate, so that a machine that slows down does so for both; the medians of the differences count.
"""

from __future__ import annotations

import statistics
import time
from itertools import cycle
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from stageproof.benchmarks.inference.images import jpegs
from stageproof.runtime import Predictor
from stageproof.runtime.images.reader import read
from stageproof.runtime.predictor import DEFAULT_BUNDLE

BATCH = 32


@pytest.fixture(scope="module")
def predictors() -> tuple[Predictor, Predictor]:
    """With processes, and without."""
    if not (Path(DEFAULT_BUNDLE) / "manifest.json").is_file():
        pytest.skip(f"no {DEFAULT_BUNDLE}/ here: python -m train, then python -m export")
    isolated, plain = Predictor(), Predictor(isolate=False)
    if not isolated.isolation:
        pytest.skip("images are decoded in this process here")
    return isolated, plain


@pytest.fixture(scope="module")
def images(predictors: tuple[Predictor, Predictor]) -> list[bytes]:
    accepted = [image for image in jpegs(256) if predictors[1].predict(image).probabilities]
    if len(accepted) < 2 * BATCH:
        pytest.skip(f"the bundle's guard accepts {len(accepted)} of 256 phantoms: it was trained on other slices")
    return accepted[: len(accepted) // BATCH * BATCH]


def test_reading(benchmark: BenchmarkFixture, predictors: tuple[Predictor, Predictor], images: list[bytes]) -> None:
    """One JPEG's bytes to pixels; `added_ms` is what the process adds."""
    following, added = cycle(images), []
    pool = predictors[0]._pool

    def turn() -> None:
        image = next(following)
        begun = time.perf_counter()
        read(image)
        between = time.perf_counter()
        read(image, pool=pool)
        added.append((time.perf_counter() - between) - (between - begun))

    benchmark(turn)
    benchmark.extra_info.update(added_ms=statistics.median(added) * 1e3)


def test_single(benchmark: BenchmarkFixture, predictors: tuple[Predictor, Predictor], images: list[bytes]) -> None:
    """One JPEG's bytes to one Prediction; `added_ms` an image."""
    following, added = cycle(images), []

    def turn() -> None:
        image, taken = next(following), []
        for predictor in predictors:
            begun = time.perf_counter()
            predictor.predict(image)
            taken.append(time.perf_counter() - begun)
        added.append(taken[0] - taken[1])

    benchmark.pedantic(turn, rounds=200, warmup_rounds=5)
    benchmark.extra_info.update(added_ms=statistics.median(added) * 1e3)


def test_stream(benchmark: BenchmarkFixture, predictors: tuple[Predictor, Predictor], images: list[bytes]) -> None:
    """JPEGs streamed; `added_ms` an image."""
    added = []

    def turn() -> None:
        taken = []
        for predictor in predictors:
            begun = time.perf_counter()
            assert sum(1 for _ in predictor.stream(images, BATCH)) == len(images)
            taken.append(time.perf_counter() - begun)
        added.append((taken[0] - taken[1]) / len(images))

    benchmark.pedantic(turn, rounds=5, warmup_rounds=1)
    benchmark.extra_info.update(added_ms=statistics.median(added) * 1e3, images=len(images))
