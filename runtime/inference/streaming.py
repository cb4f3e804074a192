"""Execution of the batches of `Predictor.stream`, with all threads on one batch or one thread per batch.

With all threads on one batch, latency is lowest, but threads wait for the slowest one after every layer, and longer
while others read the next images. With one thread per batch there is no such waiting: 3 % (224 x 224) to 12 %
(128 x 128) higher throughput with int8 on two cores. It needs a second copy of the artifact (OpenVINO: one per
thread), which pays off for long streams.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TypeVar

import numpy as np

from stageproof.runtime import backends
from stageproof.runtime.errors import StageproofError
from stageproof.runtime.inference.batch_sizes import BatchSizes, largest
from stageproof.runtime.inference.lanes import LANES
from stageproof.runtime.inference.loading import Serving, warm_up
from stageproof.runtime.inference.self_test import self_test_tolerance
from stageproof.runtime.softmax import probabilities

T = TypeVar("T")

PAYS_AFTER = 512
"""Number of images in long streams after which loading a second copy pays off."""


class Batches:
    """Runs batches from several threads: one at a time in the main engine, or, for long streams and if the backend
    supports it, concurrently in a second engine.

    The second engine is loaded from bytes with the manifest's digest, and is used only if its results for a batch equal
    the main engine's within the self-test's tolerance.
    """

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        self._several: Serving | None = None
        self._turn = threading.Lock()  # of the main engine: a concurrent batch would compete for the same threads
        self._at_once = min(serving.threads, LANES[1])
        self._slots = threading.Semaphore(self._at_once)
        self._counting = threading.Lock()
        self._seen = 0
        self._second_tried = serving.bundle is None or not backends.supports_concurrent_calls(
            serving.name, serving.device
        )
        self.largest = largest(serving.model.input.shape, serving.device)
        self._sizes = BatchSizes(self.largest)

    def size(self, *, many: bool) -> int:
        """Size of the next batch. many: as for `logits`."""
        return self._sizes.next() if many and self._several is not None else self.largest

    def logits(self, images: np.ndarray, *, many: bool, size: int | None) -> tuple[np.ndarray, float]:
        """(N, classes) float32 logits of (N, C, H, W) float32 images, and the engine's time in milliseconds.

        many: whether they belong to a stream longer than `SHORT`.
        size: batch size before the guard, to record its time; None if the caller fixed the size.

        Raises BackendError if the engine fails.
        """
        if many and self._should_load_second(len(images)):
            self._several = self._loaded(images)
        several = self._several if many else None
        with self._turn if several is None else self._slots:
            start = time.perf_counter()
            logits = (several or self._serving).logits(images)
            spent = (time.perf_counter() - start) * 1e3
        if several is not None and size is not None:
            self._sizes.took(size, len(images), spent)
        return logits, spent

    def parts(
        self, batch: list[T], files: int, first: int, *, many: bool, learn: bool
    ) -> tuple[list[list[T]], Callable[[np.ndarray], tuple[np.ndarray, float]]]:
        """The batch split for the engine, and the function that computes a part's logits.

        files: number of files in the batch. If it has more images than files (multi-frame files), it is split into
            parts of `first` images, which run with all threads, like short streams.
        learn: whether to record the time for this batch size.
        """
        if len(batch) > files:
            cut = [batch[at : at + first] for at in range(0, len(batch), first)]
            return cut, partial(self.logits, many=False, size=None)
        return [batch], partial(self.logits, many=many, size=len(batch) if learn else None)

    def _should_load_second(self, count: int) -> bool:
        """Count the images; True once, when the caller should load the second engine."""
        if self._second_tried:
            return False
        with self._counting:
            self._seen += count
            if self._second_tried or self._seen <= PAYS_AFTER or self._at_once < 2:
                return False
            self._second_tried = True
            return True

    def _loaded(self, images: np.ndarray) -> Serving | None:
        """The second engine; None if loading fails or its results for `images` differ from the main engine's."""
        one = self._serving
        assert one.again is not None, "only artifacts of a bundle can be loaded again"
        try:
            engine = one.again(self._at_once)
            several = replace(one, engine=engine)
            warm_up(several)
            answers = [probabilities(each.logits(images), one.model.temperature) for each in (one, several)]
        except StageproofError:
            return None
        same = np.array_equal(answers[0].argmax(1), answers[1].argmax(1))
        return several if same and np.abs(answers[0] - answers[1]).max() <= self_test_tolerance(one) else None
