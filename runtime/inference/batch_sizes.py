"""Automatic choice of the batch size, by measuring a few sizes during a stream, because the best one depends on the
machine.

Large batches read the weights less often; small batches keep activations in a core's cache. Example, ResNet50 int8 in
OpenVINO with one thread per batch on two Zen 4 cores: at 128 x 128, batch size 4 took 12 % less time than 16; at
224 x 224, batch size 8 took 4 % less than 2.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from statistics import median

MOST = 32
"""Largest batch size on any device."""
MOST_BYTES = 5_000_000
"""Largest batch in bytes on a CPU; larger ones exceed its caches. 8 images of 3 x 224 x 224, 16 of 3 x 128 x 128."""
TRIED = 128
"""Images measured per batch size before one is chosen."""


def largest(shape: Sequence[int], device: str) -> int:
    """Largest batch size for a device. shape: (C, H, W) of one float32 image."""
    if device != "cpu":
        return MOST
    images = max(1, MOST_BYTES // (4 * math.prod(shape)))
    return min(MOST, 2 ** int(math.log2(images)))


class BatchSizes:
    """Measures a batch size, its half and its quarter, then selects the fastest per image. Thread-safe."""

    def __init__(self, size: int) -> None:
        self.best: int | None = None
        """The selected size; None until all have been measured."""
        self._took: dict[int, list[float]] = {one: [] for one in (size, size // 2, size // 4) if one}
        self._changing = threading.Lock()

    def next(self) -> int:
        """The size of the next batch: the selected one, or before that the one measured on the fewest images."""
        return self.best or min(self._took, key=lambda one: len(self._took[one]) * one)

    def took(self, size: int, count: int, milliseconds: float) -> None:
        """Record the time of a batch of `size`, of which `count` images passed the guard. Other sizes are ignored."""
        with self._changing:
            if self.best is not None or size not in self._took or len(self._took[size]) * size >= TRIED:
                return
            self._took[size].append(milliseconds / count)
            if all(len(times) * one >= TRIED for one, times in self._took.items()):
                self.best = min(self._took, key=lambda one: median(self._took[one]))
