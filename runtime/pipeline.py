"""What happens to one image before the engine, and how the next ones are prepared while the engine runs."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from PIL import Image

from runtime.errors import ImageError
from runtime.guard import Guard
from runtime.preprocess import InputSpec, preprocess
from runtime.reading import Picture, Source, read

T = TypeVar("T")


@dataclass(frozen=True)
class Prepared:
    """One image, read, judged and preprocessed; or why not."""

    row: np.ndarray | None
    """(C, H, W) float32; None where the model may not speak."""
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


def prepare(source: Source, spec: InputSpec, guard: Guard | None) -> Prepared:
    """`source` read, judged by `guard` if there is one, and preprocessed for `spec`. Raises nothing for a bad image."""
    start = time.perf_counter()
    try:
        picture: Picture = read(source)
    except ImageError as error:
        spent = (time.perf_counter() - start) * 1e3
        return Prepared(None, code="unreadable", reason=str(error), error=error, read_ms=spent)
    after_read = time.perf_counter()
    scores, code, reason = {}, "", ""
    if guard is not None:
        scores = guard.scores(picture.image)
        code, reason = guard.judge(scores) or ("", "")
    row = None if code else preprocess(picture.image, spec)
    done = time.perf_counter()
    return Prepared(
        row,
        picture.image,
        code=code,
        reason=reason,
        guard=scores,
        transforms=picture.transforms,
        warnings=picture.warnings,
        read_ms=(after_read - start) * 1e3,
        preprocess_ms=(done - after_read) * 1e3,
    )


def prepared_batches(
    sources: Iterable[Source], work: Callable[[Source], T], batch_size: int, workers: int
) -> Iterator[list[T]]:
    """Batches of `work(source)`, in order; the next is under way in `workers` threads while the caller uses this one.

    Never holds more than two batches of sources and results. `sources` is consumed in the caller's thread.
    """
    waiting: deque[Future[T]] = deque()
    remaining = iter(sources)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="neurostage-read")
    try:
        while True:
            for source in remaining:
                waiting.append(pool.submit(work, source))
                if len(waiting) >= 2 * batch_size:
                    break
            if not waiting:
                return
            yield [waiting.popleft().result() for _ in range(min(batch_size, len(waiting)))]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
