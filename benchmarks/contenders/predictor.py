"""The Predictor as a contender: times each stage from bytes to `Prediction`, and the engine alone."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np

from stageproof.benchmarks.contenders.poisson_arrivals import serve
from stageproof.benchmarks.machine.memory import current_rss
from stageproof.runtime.images.reader import read
from stageproof.runtime.inference.engine_settings import OptimizeFor
from stageproof.runtime.predictor import Predictor
from stageproof.runtime.preprocess import preprocess


class _Stopwatch:
    """Wraps an engine or a guard and adds the time spent in its methods to `spent`, in milliseconds."""

    def __init__(self, inner: Any, *methods: str) -> None:
        self._inner = inner
        self.spent = 0.0
        for name in methods:
            setattr(self, name, partial(self._timed, name))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def _timed(self, name: str, *arguments: Any, **options: Any) -> Any:
        begun = time.perf_counter()
        try:
            return getattr(self._inner, name)(*arguments, **options)
        finally:
            self.spent += (time.perf_counter() - begun) * 1e3


class TimedPredictor:
    """A `Predictor` with timed stages. Timing adds about a microsecond to a prediction."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor
        self.stages: dict[str, float] = {}
        self._engine = _Stopwatch(predictor._serving.engine, "run")
        predictor._serving = replace(predictor._serving, engine=self._engine)
        self._guard = _Stopwatch(predictor._guard, "thumbnail", "scores_of", "judge") if predictor._guard else None
        predictor._guard = self._guard or predictor._guard  # type: ignore[assignment]
        self._rows: np.ndarray | None = None

    def answer(self, image: bytes) -> Sequence[float] | None:
        """Probabilities in the order of the model's labels; None if the guard rejects the image."""
        self._engine.spent = 0.0
        if self._guard:
            self._guard.spent = 0.0
        begun = time.perf_counter()
        prediction = self.predictor.predict(image)
        spent = (time.perf_counter() - begun) * 1e3
        timings, guard, compute = prediction.timings, self._guard.spent if self._guard else 0.0, self._engine.spent
        self.stages = {
            "read": timings.read_ms,
            "guard": guard,
            "preprocess": timings.preprocess_ms - guard,
            "transfer": timings.inference_ms - compute,
            "compute": compute,
            "post": spent - timings.read_ms - timings.preprocess_ms - timings.inference_ms,
        }
        return [prediction.probabilities[label] for label in self._labels] if prediction.probabilities else None

    def answer_all(self, images: Sequence[bytes]) -> list[Sequence[float] | None]:
        """As `answer`, for several images in one batch."""
        predictions = self.predictor.predict_batch(images, len(images))
        return [
            [one.probabilities[label] for label in self._labels] if one.probabilities else None for one in predictions
        ]

    def stream(self, images: Sequence[bytes], batch: int) -> None:
        """Run all images through `Predictor.stream`."""
        for _ in self.predictor.stream(images, batch):
            pass

    def engine(self, images: Sequence[bytes], first: int, batch: int, runs: int) -> list[float]:
        """Time of each of `runs` batches of preprocessed tensors, in milliseconds, after one untimed batch.

        first: position of the first image. batch: images per run.
        """
        tensors, times = self._preprocessed(images), []
        for run in range(-1, runs):
            rows = tensors.take(range(first + run * batch, first + (run + 1) * batch), axis=0, mode="wrap")
            begun = time.perf_counter()
            self.predictor.logits(rows)
            if run >= 0:
                times.append((time.perf_counter() - begun) * 1e3)
        return times

    def engine_stream(self, images: Sequence[bytes], count: int, batch: int) -> float:
        """Milliseconds per image of the engine alone on at least `count` preprocessed tensors in batches of `batch`,
        with as many calls at once as it was loaded for."""
        tensors, calls = self._preprocessed(images), self.predictor.concurrent_calls
        starts = range(0, len(images), batch)
        different = [tensors.take(range(start, start + batch), axis=0, mode="wrap") for start in starts]
        batches = list(islice(cycle(different), -(-count // batch)))
        with ThreadPoolExecutor(calls) as pool:
            list(pool.map(self.predictor.logits, batches[:calls]))  # untimed: starts the threads
            begun = time.perf_counter()
            list(pool.map(self.predictor.logits, batches))
            return (time.perf_counter() - begun) * 1e3 / (len(batches) * batch)

    def serve(self, images: Sequence[bytes], rate: float, seconds: float, batch: int) -> dict[str, Any]:
        """As `benchmarks.contenders.poisson_arrivals.serve`, with a different image for each request."""

        def answer(requests: Sequence[int]) -> list[bool]:
            chosen = [images[request % len(images)] for request in requests]
            if len(chosen) == 1:
                return [bool(self.predictor.predict(chosen[0]).probabilities)]
            return [bool(one.probabilities) for one in self.predictor.predict_batch(chosen)]

        return serve(answer, rate, seconds, batch=batch)

    def work(self, images: Sequence[bytes], count: int, batch: int) -> tuple[float, int]:
        """(seconds for streaming `count` images, resident memory of this process afterwards in bytes)."""
        begun = time.perf_counter()
        answered = sum(1 for _ in self.predictor.stream(islice(cycle(images), count), batch))
        assert answered == count, "a stream returns a prediction for every image"
        return time.perf_counter() - begun, current_rss()

    def file_bytes(self, images: Sequence[bytes]) -> int:
        """Size of the artifact in bytes, including a separate weights file."""
        artifact = self.predictor.artifact
        files = (artifact, artifact.with_suffix(".bin")) if artifact.suffix == ".xml" else (artifact,)
        return sum(file.stat().st_size for file in files)

    def _preprocessed(self, images: Sequence[bytes]) -> np.ndarray:
        """(N, C, H, W) float32 tensors of the images, computed in the first call."""
        if self._rows is None:
            self._rows = np.stack([preprocess(read(image).image, self.predictor.model.input) for image in images])
        return self._rows

    @property
    def _labels(self) -> tuple[str, ...]:
        return self.predictor.model.labels


def load(
    bundle: Path,
    backend: str,
    precision: str,
    device: str,
    threads: int,
    optimize_for: OptimizeFor = "latency",
    trust_code: bool = False,
) -> TimedPredictor:
    """A timed Predictor for one artifact of the bundle in one backend."""
    return TimedPredictor(
        Predictor(
            bundle,
            backend=backend,
            precision=precision,
            device=device,
            threads=threads,
            optimize_for=optimize_for,
            trust_code=trust_code,
        )
    )
