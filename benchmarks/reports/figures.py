"""Figures of each row: median, percentiles, interval, and speed-up over the published snippet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stageproof.benchmarks.compare.statistics import interval_of_times
from stageproof.benchmarks.records.schema import Row

LEAST_FOR = {0.9: 64, 0.99: 662}
"""Minimum number of samples of a percentile: the second slowest is above it with 99 % confidence, the rule of MLPerf's
LoadGen for ending a run early. A p99 of 100 samples would be the slowest one."""
LEAST_FOR_INTERVAL = 10
SNIPPET = "published snippet"
"""Start of the name of the peer that speed-ups are relative to."""
TITLES = {
    "single_stream": "one image, bytes to prediction",
    "multi_stream": "eight images, bytes to prediction",
    "offline": "per image, in batches",
    "server": "one image, random arrivals",
    "engine": "prepared tensors, engine alone",
}
"""By scenario, in the order of a report."""

Interval = tuple[float, float]


@dataclass(frozen=True)
class Figures:
    """Figures of one row; times in milliseconds."""

    number: int
    """Number of the row in tables and charts."""
    row: Row
    median: float
    interval: Interval | None
    """95 %, for autocorrelated samples, and over the processes if there are several; None with fewer than
    `LEAST_FOR_INTERVAL` samples."""
    p90: float | None
    p99: float | None
    faster: float | None
    """Speed-up over the published snippet, the median over the rounds; None if it was not measured."""
    faster_interval: Interval | None

    @property
    def title(self) -> str:
        """The name of the row, with the batch size in scenarios of several sizes."""
        sized = self.row.scenario in ("engine", "offline")
        return f"{self.row.name}, {self.row.batch}" if sized else self.row.name


def figures(rows: Sequence[Row]) -> list[Figures]:
    """Figures of every row, by scenario in the order of `TITLES` and by batch size, the fastest first."""
    ordered = [
        row
        for title in TITLES
        for row in sorted(
            (row for row in rows if row.scenario == title),
            key=lambda row: (row.batch if title == "engine" else 0, np.median(row.samples_ms)),
        )
    ]
    return [_figures(number, row, rows) for number, row in enumerate(ordered, 1)]


def tail(samples: np.ndarray, share: float) -> float | None:
    """The percentile of samples (N,), or None if they are too few for it (`LEAST_FOR`)."""
    return float(np.quantile(samples, share)) if len(samples) >= LEAST_FOR[share] else None


def _figures(number: int, row: Row, rows: Sequence[Row]) -> Figures:
    samples = np.array(row.samples_ms)
    snippet = next((one for one in rows if one.name.startswith(SNIPPET) and one.scenario == row.scenario), None)
    faster, within = (None, None) if snippet in (None, row) else _ratio(snippet, row)
    return Figures(
        number,
        row,
        float(np.median(samples)),
        _within(samples, row.processes),
        tail(samples, 0.9),
        tail(samples, 0.99),
        faster,
        within,
    )


def _ratio(slow: Row, quick: Row) -> tuple[float, Interval | None]:
    if len(slow.samples_ms) != len(quick.samples_ms):
        return float(np.median(slow.samples_ms) / np.median(quick.samples_ms)), None
    ratios = np.array(slow.samples_ms) / np.array(quick.samples_ms)
    return float(np.median(ratios)), _within(ratios, quick.processes)


def _within(samples: np.ndarray, processes: Sequence[int] | None) -> Interval | None:
    return interval_of_times(samples, processes) if len(samples) >= LEAST_FOR_INTERVAL else None


def contenders(found: Sequence[Figures]) -> list[Row]:
    """One row for each contender, the first: later scenarios hold more memory. A Predictor's is that of its process
    that is optimised for latency, unless only offline was measured."""
    first: dict[str, Row] = {}
    for one in found:
        if one.row.kind != "engine":
            first.setdefault(one.row.name, one.row)
    return list(first.values())


def number(milliseconds: float) -> str:
    """Three or four figures: ``1.234``, ``12.34``, ``123.4``, ``1234``."""
    return f"{milliseconds:.{max(0, 3 - max(0, math.floor(math.log10(milliseconds)))) if milliseconds > 0 else 3}f}"
