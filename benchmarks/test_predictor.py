"""Measures the Predictor's latency and throughput with pytest-benchmark, on `bundle/` as written by `python -m export`.

pytest benchmarks --benchmark-json out.json
"""

from __future__ import annotations

from itertools import cycle
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from stageproof.benchmarks.inference.images import jpegs
from stageproof.runtime import Predictor, TrustError, backends
from stageproof.runtime.predictor import DEFAULT_BUNDLE


@pytest.fixture(scope="module", params=list(backends.BACKENDS))
def backend(request: pytest.FixtureRequest) -> str:
    """Each backend that can run the bundle here."""
    if not (Path(DEFAULT_BUNDLE) / "manifest.json").is_file():
        pytest.skip(f"no {DEFAULT_BUNDLE}/ here: python -m train, then python -m export")
    if reason := backends.missing(request.param):
        pytest.skip(f"{request.param} {reason}")
    try:
        Predictor(backend=request.param)
    except (ValueError, TrustError) as error:  # the bundle has no artifact for that backend, or it contains code
        pytest.skip(str(error))
    return str(request.param)


@pytest.fixture(scope="module")
def images() -> list[bytes]:
    return jpegs()


def test_latency(benchmark: BenchmarkFixture, backend: str, images: list[bytes]) -> None:
    """Bytes of a JPEG to a Prediction, a different image each time."""
    predictor = Predictor(backend=backend)
    following = cycle(images)
    prediction = benchmark(lambda: predictor.predict(next(following)))
    assert prediction.backend == predictor.backend


def test_throughput(benchmark: BenchmarkFixture, backend: str, images: list[bytes]) -> None:
    """64 JPEGs to 64 Predictions."""
    predictor = Predictor(backend=backend, optimize_for="throughput")
    benchmark.extra_info["images"] = len(images)
    predictions = benchmark(lambda: predictor.predict_batch(images))
    assert len(predictions) == len(images)
