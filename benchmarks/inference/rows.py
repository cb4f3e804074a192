"""Creates the record's rows from a worker's timings, and merges the rows of several processes of a contender."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from stageproof.benchmarks.contenders.worker import Worker
from stageproof.benchmarks.inference.scenarios import Timings
from stageproof.benchmarks.records.schema import Kind, Row, Scenario


@dataclass(frozen=True)
class Facts:
    """Facts shared by all scenarios."""

    of: Mapping[str, float]
    """Measured peak GFLOP/s of this machine by precision; empty for rows without a floor."""
    gflop: float | None
    """GFLOP per image; None if the network is not known, so that rows have no floor."""
    flips: Mapping[str, dict[str, int]]
    """Contender → changed predictions."""
    threads: int


def row(
    worker: Worker,
    scenario: Scenario,
    batch: int,
    timings: Mapping[str, Timings],
    facts: Facts,
    *,
    engine_alone: bool = False,
) -> Row:
    """The row of one worker in one scenario, for queries of `batch` images.

    engine_alone: whether the times are those of a Predictor's engine on preprocessed tensors.
    """
    contender, samples = worker.contender, timings[worker.contender.name]
    median = float(np.median(samples.milliseconds))
    images = 1 if scenario == "offline" else batch  # offline samples are times per image
    floor = None
    if facts.gflop is not None and contender.precision in facts.of:
        floor = facts.gflop * images / facts.of[contender.precision] * 1e3
    ours = contender.kind == "predictor"
    return Row(
        name=contender.name.replace("Predictor", "engine", 1) if engine_alone else contender.name,
        kind="engine" if engine_alone else cast(Kind, contender.kind),
        scenario=scenario,
        backend=contender.backend,
        precision=contender.precision,
        batch=batch,
        threads=contender.threads,
        settings=contender.settings,
        samples_ms=[round(sample, 4) for sample in samples.milliseconds],
        images_per_s=1e3 * images / median,
        stable=samples.stable,
        stages_ms={stage: [round(one, 4) for one in spent] for stage, spent in samples.stages.items()} or None,
        peak_rss_bytes=worker.request("peak_rss"),
        load_s=worker.load_s,
        first_answer_s=worker.first_answer_s,
        file_bytes=worker.request("call", "file_bytes") if ours else contender.file_bytes,
        flips=facts.flips.get(contender.name),
        floor_ms=floor,
        floor_share=None if floor is None else floor / median,
    )


def pooled(by_process: Sequence[Sequence[Row]], notes: list[str]) -> list[Row]:
    """The rows of the last process, each with the samples of all processes.

    A row that is missing in a process is left out, with a note; the server row, which runs once, is kept unchanged.
    """
    found = []
    for last in by_process[-1]:
        same = [row for rows in by_process for row in rows if _key(row) == _key(last)]
        if last.scenario == "server" or len(by_process) == 1:
            found.append(last)
        elif len(same) < len(by_process):
            notes.append(f"{last.name} in {last.scenario} ran in {len(same)} of {len(by_process)} processes: left out.")
        else:
            found.append(_joined(same))
    return found


def _key(row: Row) -> tuple[str, str, int]:
    return row.scenario, row.name, row.batch if row.scenario == "engine" else 0


def _joined(rows: Sequence[Row]) -> Row:
    first = rows[0]
    samples = [sample for row in rows for sample in row.samples_ms]
    median, images = float(np.median(samples)), first.images_per_s * float(np.median(first.samples_ms)) / 1e3
    stages: dict[str, list[float]] = {}
    for row in rows:
        for stage, spent in (row.stages_ms or {}).items():
            stages.setdefault(stage, []).extend(spent)
    return replace(
        first,
        samples_ms=samples,
        processes=[len(row.samples_ms) for row in rows],
        images_per_s=1e3 * images / median,
        stable=all(row.stable for row in rows),
        stages_ms=stages or None,
        peak_rss_bytes=max((row.peak_rss_bytes for row in rows if row.peak_rss_bytes), default=None),
        load_s=float(np.median([row.load_s for row in rows])),
        first_answer_s=float(np.median([row.first_answer_s for row in rows])),
        floor_share=None if first.floor_ms is None else first.floor_ms / median,
    )
