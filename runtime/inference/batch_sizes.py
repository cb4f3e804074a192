"""How many images an engine is given at once: found out while it answers, since no rule holds on every machine.

Large batches read the weights less often, small ones keep what goes from layer to layer in a core's cache. ResNet50 in
int8 in OpenVINO, a thread for each batch on two Zen 4 cores: at 128 x 128 batches of 4 took 12 % less than 16; at
224 x 224 batches of 8 took 4 % less than 2.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from statistics import median

MOST = 32
"""Images in a batch, on any device."""
MOST_BYTES = 5_000_000
"""On a CPU at most so much, whose caches larger batches leave: 8 images of 3 x 224 x 224, 16 of 3 x 128 x 128."""
TRIED = 128
"""Images that are answered in batches of each size before one is chosen."""


def largest(shape: Sequence[int], device: str) -> int:
    """Images in the largest batch that suits a device. shape: (C, H, W) of one, in float32."""
    if device != "cpu":
        return MOST
    images = max(1, MOST_BYTES // (4 * math.prod(shape)))
    return min(MOST, 2 ** int(math.log2(images)))


class BatchSizes:
    """A size, its half or its quarter: each is tried, and from then on it is the one that took least an image.

    Any number of threads may share it.
    """

    def __init__(self, size: int) -> None:
        self.best: int | None = None
        """None until all have been tried."""
        self._took: dict[int, list[float]] = {one: [] for one in (size, size // 2, size // 4) if one}
        self._changing = threading.Lock()

    def next(self) -> int:
        """Images in each batch that is made next: before there is a best size, the one that was tried least."""
        return self.best or min(self._took, key=lambda one: len(self._took[one]) * one)

    def took(self, size: int, count: int, milliseconds: float) -> None:
        """A batch of that size was answered, of which the guard let so many images pass to the engine, in so long.

        A size that is none of those to try is nobody's concern.
        """
        with self._changing:
            if self.best is not None or size not in self._took or len(self._took[size]) * size >= TRIED:
                return
            self._took[size].append(milliseconds / count)
            if all(len(times) * one >= TRIED for one, times in self._took.items()):
                self.best = min(self._took, key=lambda one: median(self._took[one]))
