"""Who answers the batches of `Predictor.stream`.

All threads on one image answer it soonest, but wait for the slowest of them at the end of every layer, and more so
while others read the next images. A thread for each batch waits for nobody: three (224 x 224) to twelve (128 x 128) in
a hundred more images a second with int8 on two cores. It takes loading the artifact once more, in OpenVINO once for
each thread, which pays when many images come.
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
from stageproof.runtime.inference.self_test import allowed
from stageproof.runtime.softmax import probabilities

T = TypeVar("T")

PAYS_AFTER = 512
"""Images of long streams, before which loading once more costs more than it saves."""


class Batches:
    """Answers batches from several threads at once: one after another with the engine of single images; those of long
    streams, in time, with one that answers several at a time, where the backend has it.

    That one must be the same: it is made of bytes that have the manifest's digests, and it answers a batch as the first
    one does, within the self-test's tolerance. Else the first one goes on.
    """

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        self._several: Serving | None = None
        self._turn = threading.Lock()  # of the first engine: a second batch would only take the first one's threads
        self._at_once = min(serving.threads, LANES[1])
        self._slots = threading.Semaphore(self._at_once)
        self._counting = threading.Lock()
        self._seen = 0
        self._asked = serving.bundle is None or not backends.answers_several(serving.name, serving.device)
        self.largest = largest(serving.model.input.shape, serving.device)
        self._sizes = BatchSizes(self.largest)

    def size(self, *, many: bool) -> int:
        """Images in each batch that is made next. many: as for `logits`."""
        return self._sizes.next() if many and self._several is not None else self.largest

    def logits(self, images: np.ndarray, *, many: bool, size: int | None) -> tuple[np.ndarray, float]:
        """(N, classes) float32 logits of (N, C, H, W) float32 images, and the milliseconds the engine took.

        many: they are of a stream that is longer than `SHORT`.
        size: what the batch held before the guard saw it, if nobody asked for another size; None teaches nothing.

        Raises BackendError when the engine fails.
        """
        if many and self._is_time(len(images)):
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
        """What of a batch the engine is given at once, and by which `logits`.

        files: that the batch comes from; fewer than its images, of files with many frames, which are answered `first`
            at a time by all threads together, as are short streams.
        learn: take the time as that of a batch of this size.
        """
        if len(batch) > files:
            cut = [batch[at : at + first] for at in range(0, len(batch), first)]
            return cut, partial(self.logits, many=False, size=None)
        return [batch], partial(self.logits, many=many, size=len(batch) if learn else None)

    def _is_time(self, count: int) -> bool:
        """Whether the caller is the one to load the engine for several batches."""
        if self._asked:
            return False
        with self._counting:
            self._seen += count
            if self._asked or self._seen <= PAYS_AFTER or self._at_once < 2:
                return False
            self._asked = True
            return True

    def _loaded(self, images: np.ndarray) -> Serving | None:
        """The artifact loaded once more; None where that fails or it does not answer `images` as the first one does."""
        one = self._serving
        assert one.again is not None, "only a bundle's artifact is loaded again"
        try:
            engine = one.again(self._at_once)
            several = replace(one, engine=engine)
            warm_up(several)
            answers = [probabilities(each.logits(images), one.model.temperature) for each in (one, several)]
        except StageproofError:
            return None
        same = np.array_equal(answers[0].argmax(1), answers[1].argmax(1))
        return several if same and np.abs(answers[0] - answers[1]).max() <= allowed(one) else None
