"""Figures of each server under each load, with 95 % intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stageproof.benchmarks.compare.statistics import (
    Estimate,
    autocorrelation_time,
    combined,
    interval,
    interval_of_times,
    level,
)
from stageproof.benchmarks.reports.figures import LEAST_FOR, LEAST_FOR_INTERVAL, Interval, tail
from stageproof.benchmarks.serving.analysis.record import Cell
from stageproof.benchmarks.serving.client.load import LOADS, per_image

DRAWS = 1000
"""Resamples of a bootstrap."""


WIDEST = 10.0
"""Ratio of the ends of an interval above which it is left out."""


@dataclass(frozen=True)
class Figures:
    """One server under one load, over all rounds. Times in milliseconds."""

    server: str
    load: str
    answered: int
    errors: dict[str, int]
    per_s: float
    """Images per second."""
    per_s_interval: Interval | None
    p50: float | None
    p50_interval: Interval | None
    p99: float | None
    """None with fewer requests than `reports.figures.LEAST_FOR`, 662."""
    p99_interval: Interval | None
    offered_per_s: float | None
    late: float | None
    client_cpu: float
    cpu: float | None
    """CPU time of the server for each image."""
    pss_bytes: int | None
    stages: dict[str, float]


def figures(cells: Sequence[Cell]) -> list[Figures]:
    """Figures of every server under every load, by load in the order of `LOADS`, the fastest first."""
    order = [load.name for load in LOADS]
    keys = {(one.load, one.server) for one in cells}
    found = [of([one for one in cells if (one.load, one.server) == key]) for key in keys]
    return sorted(found, key=lambda one: (order.index(one.load) if one.load in order else 99, _speed(one)))


def of(cells: Sequence[Cell]) -> Figures:
    """Figures of one server under one load. cells: one for each round."""
    cells = sorted(cells, key=lambda one: one.round)
    latencies = np.array([one for cell in cells for one in cell.latencies_ms])
    enough = len(latencies) >= LEAST_FOR[0.9]  # requests of one batch are slow together: fewer say little
    p99 = tail(latencies, 0.99)
    errors: dict[str, int] = {}
    for cell in cells:
        for what, count in cell.errors.items():
            errors[what] = errors.get(what, 0) + count
    times = milliseconds_per_image(cells)
    within = interval_of_times(times) if len(times) >= LEAST_FOR_INTERVAL else None
    if within and within[1] > WIDEST * within[0]:
        within = None  # of few or strongly correlated groups: its ends say nothing
    return Figures(
        cells[0].server,
        cells[0].load,
        len(latencies),
        errors,
        len(latencies) / sum(cell.seconds for cell in cells),
        (1e3 / within[1], 1e3 / within[0]) if within else None,
        float(np.median(latencies)) if len(latencies) else None,
        interval_of_times(latencies) if enough else None,
        p99,
        bootstrap(latencies, 0.99) if p99 is not None else None,
        _median([one.offered_per_s for one in cells]),
        _median([one.late_ms for one in cells]),
        float(np.mean([one.client_cpu for one in cells])),
        _median([one.server_cpu_ms for one in cells]),
        max((one.pss_bytes for one in cells if one.pss_bytes), default=None),
        _stages(cells),
    )


def milliseconds_per_image(cells: Sequence[Cell]) -> np.ndarray:
    """(N,) milliseconds per image of successive groups of images, in the order of the rounds."""
    return np.concatenate([np.empty(0), *(per_image(one.ended_s, one.seconds) for one in cells)])


def bootstrap(values: np.ndarray, share: float, seed: int = 0) -> Interval:
    """95 % interval of the percentile `share` of autocorrelated values (N,): moving-block bootstrap (Künsch 1989).

    A block is N^(1/3) values or, if longer, the autocorrelation time: requests of one batch are slow together.
    """
    count = len(values)
    block = min(count, math.ceil(max(count ** (1 / 3), autocorrelation_time(values))))
    random = np.random.default_rng(seed)
    starts = random.integers(0, count - block + 1, (DRAWS, -(-count // block), 1))
    drawn = values[(starts + np.arange(block)).reshape(DRAWS, -1)[:, :count]]
    low, high = np.quantile(np.quantile(drawn, share, axis=1, overwrite_input=True), (0.025, 0.975))
    return float(low), float(high)


def difference(first: Sequence[float], second: Sequence[float]) -> tuple[float, Interval]:
    """(median of `first` - median of `second`, its 95 % interval), of independent autocorrelated samples."""
    a, b = level(np.array(first)), level(np.array(second))
    found = combined(a.value - b.value, [a, b])
    return found.value, interval(found)


def ratio(first: Sequence[float], second: Sequence[float]) -> tuple[float, Interval]:
    """(level of `second` / level of `first`, its 95 % interval), of positive times: how much faster `first` is."""
    a, b = _level(np.log(first)), _level(np.log(second))
    found: Estimate = combined(b.value - a.value, [a, b])
    low, high = interval(found)
    return math.exp(found.value), (math.exp(max(low, -700.0)), math.exp(min(high, 700.0)))


def _level(values: np.ndarray) -> Estimate:
    """As `level`; the mean of fewer values (2 or more), such as one for each stream, which are taken as independent."""
    if len(values) >= LEAST_FOR_INTERVAL:
        return level(values)
    return Estimate(float(values.mean()), float(values.std(ddof=1)) / math.sqrt(len(values)), len(values) - 1)


def _stages(cells: Sequence[Cell]) -> dict[str, float]:
    names = dict.fromkeys(name for cell in cells for name in cell.stages_ms)
    return {name: float(np.mean([one.stages_ms[name] for one in cells if name in one.stages_ms])) for name in names}


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None


def _speed(one: Figures) -> float:
    """For sorting: by throughput in closed loops, by latency in open ones, where the rate is given."""
    if one.offered_per_s is None:
        return -one.per_s
    return one.p50 if one.p50 is not None else math.inf
