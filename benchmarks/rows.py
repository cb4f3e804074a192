"""A worker and what its turns took → a row of the record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np

from benchmarks.record import Kind, Row, Scenario
from benchmarks.scenarios import Taken
from benchmarks.worker import Worker


@dataclass(frozen=True)
class Facts:
    """What is known before any scenario."""

    of: Mapping[str, float]
    """GFLOP/s that this machine reached, by precision; empty where rows have no floor."""
    gflop: float
    """Of one image."""
    flips: Mapping[str, dict[str, int]]
    """By contender."""
    threads: int


def row(worker: Worker, scenario: Scenario, batch: int, taken: Mapping[str, Taken], facts: Facts) -> Row:
    """The row of one worker in one scenario, over questions of `batch` images."""
    contender, samples = worker.contender, taken[worker.contender.name]
    median = float(np.median(samples.milliseconds))
    images = 1 if scenario == "offline" else batch  # offline's samples are of one image
    floor = facts.gflop * images / facts.of[contender.precision] * 1e3 if contender.precision in facts.of else None
    ours = contender.kind == "predictor"
    return Row(
        name=contender.name.replace("Predictor", "engine", 1) if scenario == "engine" else contender.name,
        kind="engine" if scenario == "engine" else cast(Kind, contender.kind),
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
        peak_rss_bytes=worker.ask("peak_rss"),
        load_s=worker.load_s,
        first_answer_s=worker.first_answer_s,
        file_bytes=worker.ask("call", "file_bytes") if ours else contender.file_bytes,
        flips=facts.flips.get(contender.name),
        floor_ms=floor,
        floor_share=None if floor is None else floor / median,
    )
