"""Scaling: time and memory against the number of images, and throughput against the number of processes."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from stageproof.benchmarks.contenders.worker import Contender, Worker
from stageproof.runtime.system.cpus import available_cpus
from stageproof.train.terminal.bars import bar

logger = logging.getLogger(__name__)

COUNTS = (100, 1_000, 10_000)
SHARED = 400
"""Total number of images for the measurement with several processes."""
BATCH = 8


def scaling(
    contender: Contender,
    images: Sequence[bytes],
    work: Path,
    counts: Sequence[int] = COUNTS,
    shared: int = SHARED,
) -> dict[str, list[dict[str, float]]]:
    """{"images": …, "workers": …}, as described in `benchmarks.records.schema`.

    images: time and memory of one Predictor with all threads that streams 100, 1,000, 10,000 images.
    workers: time of 1, 2, 4, … processes, up to the number of CPUs, with one thread each, for `shared` images in total.
    """
    grown: list[dict[str, float]] = []
    with Worker(contender, images, work / "scaling.log") as worker, bar("scaling: images", sum(counts)) as advance:
        worker.request("call", "work", BATCH * 4, BATCH)
        for count in counts:
            logger.info(f"scaling: {count} images")
            seconds, held = worker.request("call", "work", count, BATCH)
            grown.append({"images": count, "seconds": seconds, "rss_bytes": held})
            advance(count)
    cpus = available_cpus()
    sizes = sorted({1 << power for power in range(cpus.bit_length())} | {cpus})
    single = replace(contender, threads=1, arguments={**contender.arguments, "threads": 1})
    spread: list[dict[str, float]] = []
    with ExitStack() as stack:
        pool: list[Worker] = []
        for size in sizes:
            logger.info(f"scaling: {size} workers")
            while len(pool) < size:
                pool.append(stack.enter_context(Worker(single, images, work / f"scaling-{len(pool)}.log")))
            for worker in pool:
                worker.request("call", "work", BATCH * 2, BATCH)
            seconds = _parallel_seconds(pool, shared)
            spread.append({"workers": size, "seconds": seconds, "images_per_s": shared / seconds})
    return {"images": grown, "workers": spread}


def _parallel_seconds(pool: Sequence[Worker], count: int) -> float:
    """Seconds until all workers have run their part of `count` images."""
    shares = [count // len(pool) + (position < count % len(pool)) for position in range(len(pool))]
    begun = time.perf_counter()
    for worker, share in zip(pool, shares, strict=True):
        worker.send("call", "work", share, BATCH)
    for worker in pool:
        worker.receive()
    return time.perf_counter() - begun
