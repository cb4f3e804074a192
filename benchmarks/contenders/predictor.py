"""The Predictor as a contender: bytes to `Prediction`, with a clock at each stage, and its engine alone."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np

from stageproof.benchmarks.contenders.poisson_arrivals import serve
from stageproof.benchmarks.machine.memory import held_rss
from stageproof.runtime.images.reader import read
from stageproof.runtime.predictor import Predictor
from stageproof.runtime.preprocess import preprocess


class _Clocked:
    """An engine or a guard, with the milliseconds that its methods took since `spent` was last set to 0."""

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


class Ours:
    """A `Predictor`. The clocks add about a microsecond to a prediction."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor
        self.stages: dict[str, float] = {}
        self._engine = _Clocked(predictor._serving.engine, "run")
        predictor._serving = replace(predictor._serving, engine=self._engine)
        self._guard = _Clocked(predictor._guard, "thumbnail", "scores_of", "judge") if predictor._guard else None
        predictor._guard = self._guard or predictor._guard  # type: ignore[assignment]
        self._rows: np.ndarray | None = None

    def answer(self, image: bytes) -> Sequence[float] | None:
        """Probabilities in the order of the model's labels; None where the guard rejects the image."""
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
        """As `answer`, in one batch."""
        predictions = self.predictor.predict_batch(images, len(images))
        return [
            [one.probabilities[label] for label in self._labels] if one.probabilities else None for one in predictions
        ]

    def stream(self, images: Sequence[bytes], batch: int) -> None:
        """Every image through `Predictor.stream`."""
        for _ in self.predictor.stream(images, batch):
            pass

    def engine(self, images: Sequence[bytes], first: int, batch: int, runs: int) -> list[float]:
        """Milliseconds of each of `runs` batches of ready tensors, from position `first` on, after one not counted."""
        if self._rows is None:
            self._rows = np.stack([preprocess(read(image).image, self.predictor.model.input) for image in images])
        times = []
        for run in range(-1, runs):
            rows = self._rows.take(range(first + run * batch, first + (run + 1) * batch), axis=0, mode="wrap")
            begun = time.perf_counter()
            self.predictor.logits(rows)
            if run >= 0:
                times.append((time.perf_counter() - begun) * 1e3)
        return times

    def serve(self, images: Sequence[bytes], rate: float, seconds: float, batch: int) -> dict[str, Any]:
        """As `benchmarks.contenders.poisson_arrivals.serve`, every request another image."""

        def answer(requests: Sequence[int]) -> list[bool]:
            asked = [images[request % len(images)] for request in requests]
            if len(asked) == 1:
                return [bool(self.predictor.predict(asked[0]).probabilities)]
            return [bool(one.probabilities) for one in self.predictor.predict_batch(asked)]

        return serve(answer, rate, seconds, batch=batch)

    def work(self, images: Sequence[bytes], count: int, batch: int) -> tuple[float, int]:
        """(seconds, bytes held by this process afterwards) of streaming `count` images."""
        begun = time.perf_counter()
        answered = sum(1 for _ in self.predictor.stream(islice(cycle(images), count), batch))
        assert answered == count, "a stream answers every image"
        return time.perf_counter() - begun, held_rss()

    def file_bytes(self, images: Sequence[bytes]) -> int:
        """Bytes of the artifact that serves, its weights beside it included."""
        artifact = self.predictor.artifact
        files = (artifact, artifact.with_suffix(".bin")) if artifact.suffix == ".xml" else (artifact,)
        return sum(file.stat().st_size for file in files)

    @property
    def _labels(self) -> tuple[str, ...]:
        return self.predictor.model.labels


def load(bundle: Path, backend: str, precision: str, device: str, threads: int, trust_code: bool = False) -> Ours:
    """A Predictor over one artifact of the bundle in one backend."""
    return Ours(
        Predictor(
            bundle,
            backend=backend,
            precision=precision,
            device=device,
            threads=threads,
            trust_code=trust_code,
        )
    )
