"""The pipeline of `Predictor.stream`: reads images, runs them in batches, and returns predictions in input order.

Images are read while the engine runs, and only a bounded number of them is in memory.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, count, islice
from typing import TypeVar

from stageproof.runtime.errors import BackendError
from stageproof.runtime.images.reader import Source
from stageproof.runtime.inference.input_batches import Prepared
from stageproof.runtime.prediction import Prediction

BURST = 64
"""Images that one thread reads in sequence. This takes a third less time than reading single batches, because
alternating with inference evicts the decoders' code and data from the CPU caches. The first images of a stream are read
in single batches, so that the engine starts early."""

S = TypeVar("S")
P = TypeVar("P")
T = TypeVar("T")


def predictions(
    images: Iterable[Source],
    read: Callable[[list[Source]], list[list[Prepared]]],
    predict: Callable[[list[Prepared]], list[Prediction]],
    *,
    batch_size: int,
    workers: int,
) -> Iterator[list[tuple[Prediction, str | None]]]:
    """Iterator of the predictions for each batch of `images`, in order, each with the digest of its image.

    read: sources → the prepared images of each: several for a file with several frames.
    predict: at most batch_size prepared images → their predictions.
    workers: as for `in_order`.

    Raises BackendError with the positions of the sources in the failed batch.
    """

    def predicted(batch: list[list[Prepared]], first: int) -> list[tuple[Prediction, str | None]]:
        prepared = list(chain.from_iterable(batch))
        results: list[Prediction] = []
        try:
            for at in range(0, len(prepared), batch_size):
                results += predict(prepared[at : at + batch_size])
        except BackendError as error:
            positions = f"Image {first}" if len(batch) == 1 else f"Images {first} to {first + len(batch) - 1}"
            raise BackendError(f"{positions}, counted from 0: {error}") from error
        return [(result, one.digest) for result, one in zip(results, prepared, strict=True)]

    return in_order(images, read, predicted, batch_size=batch_size, workers=workers)


def in_order(
    sources: Iterable[S],
    read: Callable[[list[S]], list[P]],
    predict: Callable[[list[P], int], T],
    *,
    batch_size: int,
    workers: int,
) -> Iterator[T]:
    """Iterator of the results of `predict` for batches of the sources, in input order.

    read: sources → one item each. One thread at a time reads, ahead of the engine, after the first `BURST` sources: two
        would mostly wait for the GIL.
    predict: the items of a batch, and the position of its first source → result. Up to `workers` calls run at once.
    batch_size: sources per batch; only the last batch is smaller.

    A burst starts `workers` batches before its first batch is due. If all sources fit in one batch, it runs in the
    caller's thread: starting threads takes most of a millisecond.

    Holds at most a burst and 2 * workers + 2 batches of sources, items and results. `sources` is consumed in the
    caller's thread. An error of `read` or `predict` is raised after the results of all earlier batches, an error of
    `sources` at once; both end the threads.
    """
    remaining, taken, more = iter(sources), 0, True
    first = list(islice(remaining, batch_size + 1))
    if len(first) <= batch_size:
        if first:
            yield predict(read(first), 0)
        return
    remaining = chain(first, remaining)
    del first
    reading: deque[tuple[Future[list[P]], slice]] = deque()  # one entry per batch
    predicting: deque[Future[T]] = deque()
    positions = count(0, batch_size)

    def predicted(burst: Future[list[P]], batch: slice, position: int) -> T:
        # No deadlock: the pool starts tasks in order of submission, so the task waited for has started.
        return predict(burst.result()[batch], position)

    pool, process = ThreadPoolExecutor(workers, thread_name_prefix="stageproof-stream"), os.getpid()
    try:
        while True:
            while more and len(reading) <= workers:
                length = batch_size if taken < BURST else max(1, BURST // batch_size) * batch_size
                some = list(islice(remaining, length))
                more = bool(some)
                taken += len(some)
                if more:
                    burst = pool.submit(read, some)
                    reading.extend((burst, slice(at, at + batch_size)) for at in range(0, len(some), batch_size))
            while reading and len(predicting) <= workers:
                predicting.append(pool.submit(predicted, *reading.popleft(), next(positions)))
            if not predicting:
                return
            yield predicting.popleft().result()
    finally:
        if os.getpid() == process:  # a forked child does not have the pool's threads
            pool.shutdown(wait=True, cancel_futures=True)
