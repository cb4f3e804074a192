"""What the Predictor adds to its engine: reading, guard, preprocessing, softmax and objects; alone and in a stream."""

from __future__ import annotations

import statistics
import time
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from stageproof.benchmarks.inference.images import jpegs
from stageproof.runtime import Predictor, preprocess, read_image
from stageproof.runtime.predictor import DEFAULT_BUNDLE

BATCH = 32


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    """The artifact that serves by default. Its guard judges every image, and may reject none of these."""
    if not (Path(DEFAULT_BUNDLE) / "manifest.json").is_file():
        pytest.skip(f"no {DEFAULT_BUNDLE}/ here: python -m train, then python -m export")
    return Predictor()


@pytest.fixture(scope="module")
def images(predictor: Predictor) -> list[bytes]:
    """JPEGs that reach the engine: a rejected one would cost less."""
    accepted = [image for image in jpegs(256) if predictor.predict(image).probabilities]
    if len(accepted) < 2 * BATCH:
        pytest.skip(f"the bundle's guard accepts {len(accepted)} of 256 phantoms: it was trained on other slices")
    return accepted[: len(accepted) // BATCH * BATCH]


def test_beside_the_engine(benchmark: BenchmarkFixture, predictor: Predictor, images: list[bytes]) -> None:
    """One JPEG's bytes to one Prediction; `beside_engine_ms` is the median of all but the engine's own run."""
    following = cycle(images)
    beside = []

    def ask() -> None:
        begun = time.perf_counter()
        prediction = predictor.predict(next(following))
        beside.append((time.perf_counter() - begun) * 1e3 - prediction.timings.inference_ms)

    benchmark(ask)
    benchmark.extra_info.update(beside_engine_ms=statistics.median(beside), guarded=predictor.guarded)


def test_stream_beside_the_engine(benchmark: BenchmarkFixture, predictor: Predictor, images: list[bytes]) -> None:
    """JPEGs streamed; `of_engine` is the share of the images/s that the engine alone reaches on ready batches.

    Streams and engine take turns, so that a machine that slows down does so for both; the median ratio counts.
    """
    rows = np.stack([preprocess(read_image(image), predictor.model.input) for image in images])
    batches = np.split(rows, len(rows) // BATCH)
    ratios = []

    def turn() -> None:
        begun = time.perf_counter()
        for batch in batches:
            predictor.logits(batch)
        between = time.perf_counter()
        answered = sum(1 for _ in predictor.stream(images, BATCH))
        assert answered == len(images)
        ratios.append((between - begun) / (time.perf_counter() - between))

    benchmark.pedantic(turn, rounds=5, warmup_rounds=1)
    benchmark.extra_info.update(of_engine=statistics.median(ratios), images=len(images))
