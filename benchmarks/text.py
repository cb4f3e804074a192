"""A record → lines for a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.measure import Measured
from benchmarks.peers.eager import SNIPPET
from benchmarks.report import table

_TITLES = {
    "single_stream": "one image, bytes to answer",
    "multi_stream": "eight images, bytes to answer",
    "offline": "an image, in batches",
    "server": "one image, arriving at random",
}
_ENGINE = "ready tensors, engine alone"


def lines(record: dict[str, Any]) -> Iterator[str]:
    """Each scenario's rows, fastest first, then what else was found, then the circumstances."""
    for scenario, title in _TITLES.items():
        rows = [row for row in record["rows"] if row["scenario"] == scenario]
        if rows:
            yield from _table(title, rows)
            yield ""
    engine = [row for row in record["rows"] if row["scenario"] == "engine"]
    for batch in sorted({row["batch"] for row in engine}):
        yield from _table(f"{_ENGINE}, {batch}", [row for row in engine if row["batch"] == batch])
        yield ""
    yield from _machine(record)


def _table(title: str, rows: list[dict[str, Any]]) -> list[str]:
    measured = [Measured(row["name"], np.array(row["samples_ms"])) for row in rows]
    return table(title, measured, next((entry for entry in measured if entry.name == SNIPPET), None))


def _machine(record: dict[str, Any]) -> Iterator[str]:
    found = record["circumstances"]
    yield found["cpu"]
    yield f"{record['threads']} threads, load average {found['load_average']}, noise {found['noise']:.1%}"
    floors = [f"{name} {entry['gflop_s']:.0f} GFLOP/s" for name, entry in record["floors"].items() if name != "memory"]
    if floors:
        yield f"at most {', '.join(floors)}"
        yield f"an image is {record['work']['gflop_per_image']:.2f} GFLOP"
    if found["busy"]:
        yield "This machine was too busy to measure on: do not publish these figures."
