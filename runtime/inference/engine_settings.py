"""`EngineSettings`: the engine that a caller requires, with its device, threads, and mode (latency or throughput)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from stageproof.runtime.system.cpus import available_cpus

OptimizeFor = Literal["latency", "throughput"]
"""Modes of `Predictor`, named after the values of OpenVINO's PERFORMANCE_HINT."""
MODES: tuple[OptimizeFor, ...] = ("latency", "throughput")

MOST_CALLS = 4
"""Maximum number of concurrent calls in throughput mode; with more threads, each call has several. Each call holds a
batch and the activations of the network in memory."""
MOST_IMAGES = 32
"""Largest batch on any device."""
MOST_BYTES = 5_000_000
"""Largest batch on a CPU in bytes; larger ones exceed its caches. 8 images of 3 x 224 x 224, 16 of 3 x 128 x 128."""


@dataclass(frozen=True)
class EngineSettings:
    """What the caller of `Predictor` requires of its engine."""

    backend: str | None = None
    """Name of the backend; None for any."""
    precision: str | None = None
    """Precision of the artifact; None for any."""
    device: str = "cpu"
    threads: int = 1
    """CPU threads of the engine, all calls together."""
    optimize_for: OptimizeFor = "latency"

    @property
    def concurrent_calls(self) -> int:
        """Number of batches that the engine runs at once: 1 for latency, up to `MOST_CALLS` for throughput.

        With all threads on one batch, its latency is lowest, but threads wait for the slowest one after every layer.
        With several batches at once there is less waiting. On a GPU, a single batch occupies the whole device.
        """
        return min(self.threads, MOST_CALLS) if self.optimize_for == "throughput" and self.device == "cpu" else 1

    @property
    def workers(self) -> int:
        """Number of threads of a stream: one for each concurrent call, and one that reads images meanwhile if a CPU is
        left for it; at least 2."""
        spare = available_cpus() > self.concurrent_calls
        return max(2, self.concurrent_calls + spare)

    @property
    def named(self) -> bool:
        """Whether the caller requires a certain backend or precision."""
        return self.backend is not None or self.precision is not None

    def batch_size(self, shape: Sequence[int]) -> int:
        """Images per call of the engine in a stream. shape: (C, H, W) of one float32 image."""
        if self.device != "cpu":
            return MOST_IMAGES
        images = max(1, MOST_BYTES // (4 * math.prod(shape)))
        return min(MOST_IMAGES, 2 ** int(math.log2(images)))
