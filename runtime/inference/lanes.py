"""`in_lanes`: a pipeline that prepares images and runs batches concurrently, in input order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from typing import TypeVar

LANES = (2, 4)
"""Minimum and maximum number of concurrent batches: one runs while others are prepared."""
SHORT = 64
"""A stream of more images counts as long. Short streams have the lowest latency with all threads on one batch."""
BURST = 64
"""Images of a long stream that one thread prepares in sequence."""

S = TypeVar("S")
P = TypeVar("P")
T = TypeVar("T")


def in_lanes(
    sources: Iterable[S],
    prepare: Callable[[list[S]], list[P]],
    answer: Callable[[list[P]], list[T]],
    *,
    batch_size: Callable[[int], int],
    lanes: int,
) -> Iterator[T]:
    """Iterator of the items of ``answer(prepare(batch))`` for batches of the sources, in input order.

    `lanes` threads run one task each. At first, sources are prepared one batch at a time, for the lowest latency; later
    in bursts of `BURST`, which takes a third less time, because alternating with inference evicts the decoders' code
    and data from the CPU caches. A burst starts `lanes` batches before its first batch is due, so that one thread
    prepares while the others run the engine; two preparing threads would mostly wait for the GIL.

    If all sources fit in one batch, it runs in the caller's thread: starting threads takes most of a millisecond.

    batch_size: number of sources taken so far → size of the next batch.

    Holds at most a burst and 2 * lanes + 2 batches of sources, prepared sources and results. `sources` is consumed in
    the caller's thread.
    """
    prepared: deque[tuple[Future[list[P]], slice]] = deque()  # one per batch of the started bursts
    waiting: deque[Future[list[T]]] = deque()
    remaining, taken, more = iter(sources), 0, True
    size = batch_size(0)
    first = list(islice(remaining, size + 1))
    if len(first) <= size:
        yield from answer(prepare(first)) if first else ()
        return
    remaining = chain(first, remaining)
    del first

    def answered(part: tuple[Future[list[P]], slice]) -> list[T]:
        # No deadlock: the pool starts tasks in order of submission, so the task waited for has started.
        return answer(part[0].result()[part[1]])

    pool, process = ThreadPoolExecutor(lanes, thread_name_prefix="stageproof-lane"), os.getpid()
    try:
        while True:
            while more and len(prepared) <= lanes:
                size = batch_size(taken) if taken else size
                some = list(islice(remaining, max(1, BURST // size) * size if taken >= SHORT else size))
                if not some:
                    more = False
                    break
                taken += len(some)
                begun = pool.submit(prepare, some)
                prepared.extend((begun, slice(at, at + size)) for at in range(0, len(some), size))
            while prepared and len(waiting) <= lanes:
                waiting.append(pool.submit(answered, prepared.popleft()))
            if not waiting:
                return
            yield from waiting.popleft().result()
    finally:
        if os.getpid() == process:  # a forked child does not have the pool's threads
            pool.shutdown(wait=True, cancel_futures=True)
