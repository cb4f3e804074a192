"""Measures the added time of decoding images in separate, limited processes (`Predictor(isolate=True)`).

    pytest benchmarks/test_isolation.py --benchmark-json out.json

Runs with and without isolation alternate, so that drift of the machine affects both; the result is the median
difference.
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
    """(isolated Predictor, Predictor without isolation)."""
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
    """Bytes of a JPEG to pixels; `added_ms`: time added by the isolated process."""
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
    """Bytes of a JPEG to a Prediction; `added_ms`: added time per image."""
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
    """A stream of JPEGs; `added_ms`: added time per image."""
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
