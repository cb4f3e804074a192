"""The Predictor without a server, in the same rounds: one image at a time, and streams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from stageproof.benchmarks.contenders.worker import Contender, Worker
from stageproof.benchmarks.inference.scenarios import BURST
from stageproof.runtime.errors import InputError
from stageproof.runtime.predictor import Predictor

Expected = tuple[str, Mapping[str, float]]
"""(label, probability of each label)."""
STREAMS = 2
"""Streams of a round."""


def expected_answers(bundle: Path, precision: str, images: Sequence[bytes]) -> list[Expected]:
    """What the Predictor says of each image. Raises InputError if it rejects one: servers without a guard would
    be compared on other work."""
    predictor = Predictor(bundle, backend="onnx", precision=precision)
    answers: list[Expected] = []
    for position, prediction in enumerate(predictor.predict_batch(images)):
        if prediction.label is None or prediction.probabilities is None:
            raise InputError(
                f"image {position} has no label ({prediction.status}: {prediction.reason}); expected images that the "
                "bundle predicts. Give other images: --data."
            )
        answers.append((prediction.label, dict(prediction.probabilities)))
    return answers


@dataclass
class InProcess(AbstractContextManager["InProcess"]):
    """Two processes, with the Predictor loaded for latency and for throughput."""

    bundle: Path
    precision: str
    threads: int
    batch: int
    images: Sequence[bytes]
    work: Path
    _stack: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> InProcess:
        self._single, self._stream = (self._worker(mode) for mode in ("latency", "throughput"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def measured(self, seconds: float, stream_images: int, round_: int) -> dict[str, Any]:
        """{latencies_ms, stream_ms}: about `seconds` of single images; milliseconds per image of each of
        `STREAMS` streams of `stream_images`."""
        latencies: list[float] = []
        while sum(latencies) < seconds * 1e3:
            times, _ = self._single.request("burst", round_ * 10_000 + len(latencies), BURST)
            latencies += times
        self._single.wait_until_idle()
        self._stream.request("throughput", self.batch * 2, self.batch)
        streams = [
            self._stream.request("throughput", stream_images, self.batch) * 1e3 / stream_images for _ in range(STREAMS)
        ]
        self._stream.wait_until_idle()
        return {
            "latencies_ms": [round(one, 4) for one in latencies],
            "stream_ms": [round(one, 4) for one in streams],
            "batch": self.batch,
        }

    def _worker(self, mode: str) -> Worker:
        arguments = {"bundle": self.bundle, "backend": "onnx", "precision": self.precision, "device": "cpu"}
        contender = Contender(
            "Predictor",
            "predictor",
            "onnx",
            self.precision,
            self.threads,
            f"onnx as the runtime loads it, optimised for {mode}",
            "stageproof.benchmarks.contenders.predictor",
            {**arguments, "threads": self.threads, "optimize_for": mode},
        )
        return self._stack.enter_context(Worker(contender, self.images, self.work / f"predictor-{mode}.log"))
