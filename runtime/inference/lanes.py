"""How many images become batches that are under way at once."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from typing import TypeVar

LANES = (2, 4)
"""Batches under way at once, at least and at most: one runs while others are prepared."""
SHORT = 64
"""A stream of more images is a long one. Few images are answered sooner by the batch, and by all threads together."""
BURST = 64
"""Images of a long stream that are prepared in a row."""

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
    """What `answer` makes of each batch of what `prepare` makes of the sources, item by item and in order.

    `lanes` threads work on one thing each. Sources are prepared by the batch at first, which is soonest answered; later
    by the `BURST`, which costs a third less: after a batch has been answered the caches hold nothing of how images are
    read. A burst is begun `lanes` batches before its own first one is due, so that one thread prepares while the others
    answer; two that prepare at the same time would only wait for each other, since most of that is Python.

    What is one batch as a whole is answered in the caller's thread: beginning others takes most of a millisecond.

    batch_size: of so many that were taken before, how many of the next ones make a batch.

    Never holds more than a burst and 2 * lanes + 2 batches of sources, prepared sources and results. `sources` is
    consumed in the caller's thread.
    """
    prepared: deque[tuple[Future[list[P]], slice]] = deque()  # one for each batch of the bursts that were begun
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
        # The pool begins things in the order they came in: what this waits for was begun before.
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
        if os.getpid() == process:  # a forked child has none of the pool's threads
            pool.shutdown(wait=True, cancel_futures=True)
