"""The rows of one process of each contender: every scenario that is asked for, one after another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np

from stageproof.benchmarks.contenders.selection import start
from stageproof.benchmarks.contenders.worker import Worker
from stageproof.benchmarks.inference import scenarios
from stageproof.benchmarks.inference.rows import Facts, row
from stageproof.benchmarks.options import Options
from stageproof.benchmarks.records.schema import Row

Say = Callable[[str], None]


def rows_of(
    options: Options,
    asked: Sequence[str],
    workers: Sequence[Worker],
    images: Sequence[bytes],
    facts: Facts,
    work: Path,
    batches: dict[str, int],
    say: Say,
) -> list[Row]:
    """The rows of one process of each contender. batches: sizes chosen in an earlier process, filled by the first."""
    ours = [worker for worker in workers if worker.contender.kind == "predictor"]
    rows: list[Row] = []
    if "single_stream" in asked:
        taken = scenarios.single_stream(workers, options.per_process, say)
        rows += [row(worker, "single_stream", 1, taken, facts) for worker in workers]
    if "multi_stream" in asked:
        taken = scenarios.multi_stream(workers, max(10, options.per_process // 4), say)
        rows += [row(worker, "multi_stream", scenarios.QUESTION, taken, facts) for worker in workers]
    if "offline" in asked:
        for worker in () if options.quick else ours:
            worker.ask("throughput", scenarios.LONG, scenarios.QUESTION)
        if not batches:
            batches.update(scenarios.best_batches(workers, 16 if options.quick else scenarios.TRIED))
        count = len(images) if options.quick else max(len(images), scenarios.OFFLINE)
        taken = scenarios.offline(workers, batches, count, 3 if options.counted < 60 else 5, say)
        rows += [row(worker, "offline", batches[worker.contender.name], taken, facts) for worker in workers]
    if "engine" in asked:
        for batch in (1, 8, 32):
            samples = max(12, options.per_process // batch)
            taken = scenarios.engine(ours, batch, samples, say)
            rows += [row(worker, "engine", batch, taken, facts) for worker in ours]
        rows += _one_thread(ours, images, facts, work, options.per_process, say)
    if "server" in asked:
        rows.append(_server(options, ours, images, facts, say))
    return rows


def _one_thread(
    ours: Sequence[Worker], images: Sequence[bytes], facts: Facts, work: Path, samples: int, say: Say
) -> list[Row]:
    """The engines alone on one CPU thread, each row named so."""
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
        workers = start(single, images, work, stack, [], say)
        taken = scenarios.engine(workers, 1, max(12, samples // 2), say)
        return [row(worker, "engine", 1, taken, replace(facts, of={})) for worker in workers]


def _server(options: Options, ours: Sequence[Worker], images: Sequence[bytes], facts: Facts, say: Say) -> Row:
    """The artifact that serves by default, at a share of the throughput that it has just shown."""
    taken = scenarios.single_stream(ours, 40, say)
    fastest = min(ours, key=lambda worker: float(np.median(taken[worker.contender.name].milliseconds)))
    name = fastest.contender.name
    single = float(np.median(taken[name].milliseconds))
    fastest.ask("throughput", scenarios.LONG, scenarios.QUESTION)
    batch = scenarios.best_batches([fastest], scenarios.TRIED)
    alone = scenarios.offline([fastest], batch, max(len(images), scenarios.OFFLINE), 5, say)[name]
    rate = options.server_load * 1e3 / float(np.median(alone.milliseconds))
    say(f"server: {options.server_seconds} s at {rate:.1f} images/s, {options.server_load:.0%} of {name} offline")
    served = fastest.ask("call", "serve", rate, options.server_seconds, scenarios.QUESTION)
    latencies = scenarios.Taken(served["latencies_ms"])
    found = row(fastest, "server", scenarios.QUESTION, {name: latencies}, facts)
    return replace(
        found,
        images_per_s=len(latencies.milliseconds) / served["seconds"],
        floor_ms=None,
        floor_share=None,
        settings=f"{found.settings}; at most {scenarios.QUESTION} waiting images in one batch",
        server={
            "offered_per_s": rate,
            "offline_share": options.server_load,
            "single_ms": single,
            "latency_bound_ms": 4 * single,
            "lost": served["lost"],
            "seconds": served["seconds"],
        },
    )
