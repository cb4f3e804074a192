"""The engine for many images: one artifact that answers several batches at once, each on its share of the threads."""

from __future__ import annotations

import threading
import time

import numpy as np

from runtime import backends
from runtime.serving import Serving, loaded_for_streams
from runtime.threads import available_cpus

STREAMS = 4
"""At most. Each has its own copy of what a batch needs, and the Python around the engine keeps a few of them busy."""

WORTH = 512
"""Images after which loading the artifact once more pays: it takes as long as a few hundred images."""


class Throughput:
    """Runs batches of streams. Safe from several threads, of which as many run at once as that is any good for.

    At first the engine that serves single images does it, one batch at a time on all threads. From the `WORTH`th image
    on, where the backend can, it is the same artifact loaded once more with a stream of its own for each thread: then
    nobody waits for the slowest thread after each layer.
    """

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        self._turns = threading.BoundedSemaphore(1)
        shared = serving.device == "cpu" and backends.BACKENDS[serving.name].STREAMS
        self._streams = min(STREAMS, serving.threads) if shared else 1
        self._changing = threading.Lock()
        self._before = WORTH if self._streams > 1 else None

    @property
    def lanes(self) -> int:
        """Threads to prepare batches in: one more than run at once, so that one is always ready."""
        return self._streams + 1 if self._streams > 1 else max(2, min(STREAMS, available_cpus()))

    def logits(self, images: np.ndarray) -> tuple[np.ndarray, float]:
        """(N, classes) float32 logits as `Serving.logits`, and the milliseconds that the engine took."""
        serving, turns = self._at_hand(len(images))
        with turns:
            begun = time.perf_counter()
            result = serving.logits(images)
            return result, (time.perf_counter() - begun) * 1e3

    def _at_hand(self, count: int) -> tuple[Serving, threading.BoundedSemaphore]:
        with self._changing:
            if self._before is not None:
                self._before -= count
                if self._before < 0:
                    self._before = None
                    self._serving = loaded_for_streams(self._serving, self._streams)
                    self._turns = threading.BoundedSemaphore(self._streams)
            return self._serving, self._turns
