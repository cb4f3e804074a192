"""Cost against work: more images through one process, and the same images through more processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from stageproof.benchmarks.contenders.worker import Contender, Worker
from stageproof.runtime.system.cpus import available_cpus

COUNTS = (100, 1_000, 10_000)
SHARED = 400
"""Images that the workers share."""
BATCH = 8


def scaling(
    contender: Contender,
    images: Sequence[bytes],
    work: Path,
    say: Callable[[str], None],
    counts: Sequence[int] = COUNTS,
    shared: int = SHARED,
) -> dict[str, list[dict[str, float]]]:
    """{"images": …, "workers": …} as `benchmarks.records.schema` has it.

    images: time and memory of one Predictor with all its threads that streams 100, 1,000, 10,000 images.
    workers: time of 1, 2, 4, … processes up to the CPUs, one thread each, that share `shared` images.
    """
    grown: list[dict[str, float]] = []
    with Worker(contender, images, work / "scaling.log") as worker:
        worker.ask("call", "work", BATCH * 4, BATCH)
        for count in counts:
            say(f"scaling: {count} images")
            seconds, held = worker.ask("call", "work", count, BATCH)
            grown.append({"images": count, "seconds": seconds, "rss_bytes": held})
    cpus = available_cpus()
    sizes = sorted({1 << power for power in range(cpus.bit_length())} | {cpus})
    single = replace(contender, threads=1, arguments={**contender.arguments, "threads": 1})
    spread: list[dict[str, float]] = []
    with ExitStack() as stack:
        team: list[Worker] = []
        for size in sizes:
            say(f"scaling: {size} workers")
            while len(team) < size:
                team.append(stack.enter_context(Worker(single, images, work / f"scaling-{len(team)}.log")))
            for worker in team:
                worker.ask("call", "work", BATCH * 2, BATCH)
            seconds = _together(team, shared)
            spread.append({"workers": size, "seconds": seconds, "images_per_s": shared / seconds})
    return {"images": grown, "workers": spread}


def _together(team: Sequence[Worker], count: int) -> float:
    """Seconds until the last of them has done its share."""
    shares = [count // len(team) + (position < count % len(team)) for position in range(len(team))]
    begun = time.perf_counter()
    for worker, share in zip(team, shares, strict=True):
        worker.begin("call", "work", share, BATCH)
    for worker in team:
        worker.end()
    return time.perf_counter() - begun
