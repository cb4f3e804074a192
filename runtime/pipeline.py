"""What happens to one image before the engine, and how many images become batches that are under way at once."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

import numpy as np
from PIL import Image

from runtime.errors import ImageError
from runtime.guard import Guard
from runtime.preprocess import InputSpec, preprocess
from runtime.reading import Picture, Source, read

LANES = (2, 4)
"""Batches under way at once, at least and at most: one runs while others are prepared."""

S = TypeVar("S")
T = TypeVar("T")


@dataclass(frozen=True)
class Prepared:
    """One image, read, judged and preprocessed; or why not."""

    accepted: bool
    """Whether the model may speak of it, and its row was filled."""
    image: Image.Image | None = None
    """None where it could not be read."""
    code: str = ""
    reason: str = ""
    error: ImageError | None = None
    guard: dict[str, float] = field(default_factory=dict)
    transforms: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    read_ms: float = 0.0
    preprocess_ms: float = 0.0


def prepare(source: Source, spec: InputSpec, guard: Guard | None, row: np.ndarray) -> Prepared:
    """`source` read, judged by `guard` if there is one, and preprocessed into `row`. Raises nothing for a bad image.

    row: (C, H, W) float32 of `spec`, which is filled where the image is accepted.
    """
    start = time.perf_counter()
    try:
        picture: Picture = read(source)
    except ImageError as error:
        spent = (time.perf_counter() - start) * 1e3
        return Prepared(accepted=False, code="unreadable", reason=str(error), error=error, read_ms=spent)
    after_read = time.perf_counter()
    scores, code, reason = {}, "", ""
    if guard is not None:
        scores = guard.scores(picture.image)
        code, reason = guard.judge(scores) or ("", "")
    if not code:
        preprocess(picture.image, spec, row)
    done = time.perf_counter()
    return Prepared(
        not code,
        picture.image,
        code=code,
        reason=reason,
        guard=scores,
        transforms=picture.transforms,
        warnings=picture.warnings,
        read_ms=(after_read - start) * 1e3,
        preprocess_ms=(done - after_read) * 1e3,
    )


class Rows:
    """Float32 memory for batches of images of one shape, used again: fresh pages cost more than filling them."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self._shape = shape
        self._spare: deque[np.ndarray] = deque()

    def take(self, count: int) -> np.ndarray:
        """(count or more, C, H, W) float32 that nobody else has. Safe from several threads."""
        try:
            rows = self._spare.pop()
        except IndexError:
            return np.empty((count, *self._shape), np.float32)
        return rows if len(rows) >= count else np.empty((count, *self._shape), np.float32)

    def give_back(self, rows: np.ndarray) -> None:
        """For the next one who asks. What `take` gave and nobody gives back is let go."""
        self._spare.append(rows)


def in_lanes(sources: Iterable[S], work: Callable[[list[S]], list[T]], batch_size: int, lanes: int) -> Iterator[T]:
    """What `work` makes of each batch of sources, item by item and in order; `lanes` threads work on a batch each.

    Never holds more than lanes + 1 batches of sources and results. `sources` is consumed in the caller's thread.
    """
    waiting: deque[Future[list[T]]] = deque()
    remaining = iter(sources)
    pool = ThreadPoolExecutor(lanes, thread_name_prefix="neurostage-lane")
    try:
        while True:
            while len(waiting) <= lanes and (batch := list(islice(remaining, batch_size))):
                waiting.append(pool.submit(work, batch))
            if not waiting:
                return
            yield from waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
