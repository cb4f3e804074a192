"""Runs the requested scenarios on one process of each contender and returns their rows."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np

from stageproof.benchmarks.contenders.selection import optimised_for, start
from stageproof.benchmarks.contenders.worker import Worker
from stageproof.benchmarks.inference import scenarios
from stageproof.benchmarks.inference.rows import Facts, row
from stageproof.benchmarks.options import Options
from stageproof.benchmarks.records.schema import Row

logger = logging.getLogger(__name__)


def rows_of(
    options: Options,
    selected: Sequence[str],
    workers: Sequence[Worker],
    images: Sequence[bytes],
    facts: Facts,
    work: Path,
    batches: dict[str, int],
) -> list[Row]:
    """The rows of one process of each contender.

    selected: names of the scenarios. batches: contender → batch size for offline; chosen and filled in by the first
    process, reused by later ones.
    """
    ours = [worker for worker in workers if worker.contender.kind == "predictor"]
    rows: list[Row] = []
    if "single_stream" in selected:
        timings = scenarios.single_stream(workers, options.per_process)
        rows += [row(worker, "single_stream", 1, timings, facts) for worker in workers]
    if "multi_stream" in selected:
        timings = scenarios.multi_stream(workers, max(10, options.per_process // 4))
        rows += [row(worker, "multi_stream", scenarios.QUERY_SIZE, timings, facts) for worker in workers]
    if "offline" in selected:
        rows += _offline(options, workers, images, facts, work, batches)
    if "engine" in selected:
        for batch in (1, 8, 32):
            samples = max(12, options.per_process // batch)
            timings = scenarios.engine(ours, batch, samples)
            rows += [row(worker, "engine", batch, timings, facts, engine_alone=True) for worker in ours]
        rows += _one_thread(ours, images, facts, work, options.per_process)
    if "server" in selected:
        rows.append(_server(options, ours, images, facts))
    return rows


def _offline(
    options: Options,
    workers: Sequence[Worker],
    images: Sequence[bytes],
    facts: Facts,
    work: Path,
    batches: dict[str, int],
) -> list[Row]:
    """Rows of the Predictors, loaded for throughput in processes of their own, of their engines alone, and of peers."""
    peers = [worker for worker in workers if worker.contender.kind != "predictor"]
    latency = [worker.contender for worker in workers if worker.contender.kind == "predictor"]
    with ExitStack() as stack:
        ours = start([optimised_for(one, "throughput") for one in latency], images, work, stack, [])
        everyone = [*ours, *peers]
        search = 16 if options.quick else scenarios.BATCH_SEARCH_IMAGES
        if not batches:
            batches.update(scenarios.best_batches(everyone, search))
        for worker in everyone:
            worker.request("throughput", search, batches[worker.contender.name])
        count = len(images) if options.quick else max(len(images), scenarios.OFFLINE_IMAGES)
        timings, engines = scenarios.offline(everyone, batches, count, options.offline_turns)
        sizes = {worker: batches[worker.contender.name] for worker in everyone}
        return [
            *(row(worker, "offline", sizes[worker], timings, facts) for worker in everyone),
            *(row(worker, "offline", sizes[worker], engines, facts, engine_alone=True) for worker in ours),
        ]


def _one_thread(ours: Sequence[Worker], images: Sequence[bytes], facts: Facts, work: Path, samples: int) -> list[Row]:
    """Rows of the engines alone on one CPU thread."""
    if facts.threads == 1:
        return []
    with ExitStack() as stack:
        single = [
            replace(
                worker.contender,
                name=f"{worker.contender.name}, 1 thread",
                threads=1,
                arguments={**worker.contender.arguments, "threads": 1},
            )
            for worker in ours
        ]
        workers = start(single, images, work, stack, [])
        timings = scenarios.engine(workers, 1, max(12, samples // 2))
        return [row(worker, "engine", 1, timings, replace(facts, of={}), engine_alone=True) for worker in workers]


def _server(options: Options, ours: Sequence[Worker], images: Sequence[bytes], facts: Facts) -> Row:
    """The row of the fastest Predictor in the server scenario, at a fraction of its stream's throughput, measured just
    before. It is optimised for latency, which is what the scenario measures."""
    timings = scenarios.single_stream(ours, 40)
    fastest = min(ours, key=lambda worker: float(np.median(timings[worker.contender.name].milliseconds)))
    name = fastest.contender.name
    single = float(np.median(timings[name].milliseconds))
    batch = scenarios.best_batches([fastest], scenarios.BATCH_SEARCH_IMAGES)
    alone = scenarios.offline([fastest], batch, max(len(images), scenarios.OFFLINE_IMAGES), 5)[0][name]
    rate = options.server_load * 1e3 / float(np.median(alone.milliseconds))
    logger.info(f"server: {options.server_seconds} s at {rate:.1f} images/s, {options.server_load:.0%} of its stream")
    served = fastest.request("call", "serve", rate, options.server_seconds, scenarios.QUERY_SIZE)
    latencies = scenarios.Timings(served["latencies_ms"])
    found = row(fastest, "server", scenarios.QUERY_SIZE, {name: latencies}, facts)
    return replace(
        found,
        images_per_s=len(latencies.milliseconds) / served["seconds"],
        floor_ms=None,
        floor_share=None,
        settings=f"{found.settings}; at most {scenarios.QUERY_SIZE} waiting images in one batch",
        server={
            "offered_per_s": rate,
            "offline_share": options.server_load,
            "single_ms": single,
            "latency_bound_ms": 4 * single,
            "lost": served["lost"],
            "seconds": served["seconds"],
        },
    )
