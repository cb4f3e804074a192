"""`rows_summary` and `log_summary`: the figures of a report, gathered part by part in constant memory per row."""

from __future__ import annotations

import array
import heapq
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stageproof.runtime.system.regular_files import open_regular
from stageproof.serving.archive.output import parts
from stageproof.serving.archive.output.plan import Plan
from stageproof.serving.archive.progress import FILE
from stageproof.serving.archive.verification import part_fault

BINS = 40
"""Bins of a histogram of a guard score, from 0 to twice its threshold; the last one has all larger values."""
SHOWN = 100
"""Inputs listed in a table."""
INTERVALS = 60
"""Intervals of the throughput over time."""


@dataclass
class Score:
    """A guard score over all readable inputs."""

    threshold: float
    counts: np.ndarray = field(default_factory=lambda: np.zeros(BINS, np.int64))
    above: int = 0

    @property
    def total(self) -> int:
        """Number of inputs with this score."""
        return int(self.counts.sum())


@dataclass
class Rows:
    """What the rows say."""

    rows: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    unreadable: Counter[str] = field(default_factory=Counter)
    """Reason of unreadable inputs → number."""
    failed: list[tuple[int, str, str, str]] = field(default_factory=list)
    """(input, input_id, code, reason) of the first rejected inputs."""
    scores: dict[str, Score] = field(default_factory=dict)
    copies: int = 0
    """Inputs with the same content as an earlier one."""
    faulty: int = 0
    """Shards without a valid part."""


def rows_summary(plan: Plan) -> Rows:
    """Read all valid parts. Memory: 8 bytes per input, to count copies."""
    guard = plan.data["bundle"]["guard"] or {"thresholds": {}}
    found = Rows(scores={name: Score(float(most)) for name, most in guard["thresholds"].items()})
    contents = array.array("Q")
    for shard in plan.shards:
        if part_fault(plan, shard) is not None:
            found.faulty += 1
            continue
        table, _ = parts.read(plan.part(shard))
        column = {name: table.column(name).to_pylist() for name in ("status", "label", "code", "reason", "sha256")}
        found.rows += len(table)
        found.statuses.update(column["status"])
        found.labels.update(one for one in column["label"] if one is not None)
        found.codes.update(one for one in column["code"] if one)
        contents.extend(int(one[:16], 16) for one in column["sha256"] if one)
        for at, (status, code, reason) in enumerate(
            zip(column["status"], column["code"], column["reason"], strict=True)
        ):
            if code == "unreadable":
                found.unreadable[reason] += 1
            if status == "rejected" and len(found.failed) < SHOWN:
                number, name = table.column("input")[at].as_py(), table.column("input_id")[at].as_py()
                found.failed.append((number, name, code, reason))
        for name, score in found.scores.items():
            _count(score, table.column(f"guard_{name}").drop_null().to_numpy())
    found.copies = len(contents) - len(np.unique(np.frombuffer(contents, np.uint64))) if contents else 0
    return found


def _count(score: Score, values: np.ndarray) -> None:
    width = 2 * score.threshold / BINS or 1.0
    places = np.clip((values / width).astype(np.int64), 0, BINS - 1)
    score.counts += np.bincount(places, minlength=BINS)
    score.above += int((values > score.threshold).sum())


@dataclass
class Worker:
    """What one worker did."""

    images: int = 0
    shards: int = 0
    seconds: float = 0.0
    """Spent on scoring."""


@dataclass
class Times:
    """What the log says, over all runs."""

    workers: dict[str, Worker] = field(default_factory=dict)
    lost: list[dict[str, Any]] = field(default_factory=list)
    slowest: list[tuple[float, int]] = field(default_factory=list)
    """(milliseconds, input), the slowest first."""
    runs: int = 0
    changed: int = 0
    rates: list[float] = field(default_factory=list)
    """Images per second in `INTERVALS` equal intervals of `seconds`."""
    seconds: float = 0.0
    """From the first start to the last event, without the time between runs."""


def log_summary(plan: Plan) -> Times:
    """Read the log. A line that a killed run left incomplete is ignored."""
    found = Times()
    spans: list[tuple[float, float, int]] = []
    now = last = 0.0
    if not (plan.out / FILE).exists():  # killed before the first shard
        return found
    with open_regular(plan.out / FILE) as file:
        for line in file:
            try:
                one = json.loads(line)
            except ValueError:
                continue
            now += 0.0 if one["event"] == "start" else max(0.0, one["time"] - last)
            last = one["time"]
            found.runs += one["event"] == "start"
            if one["event"] == "lost":
                found.lost.append(one)
            elif one["event"] == "scored":
                worker = found.workers.setdefault(one["worker"], Worker())
                worker.images += one["rows"]
                worker.shards += 1
                worker.seconds += one["seconds"]
                found.changed += one["changed"]
                spans.append((max(0.0, now - one["seconds"]), now, one["rows"]))
                slow = [(ms, number) for number, ms in one["slowest"]]
                found.slowest = heapq.nlargest(10, [*found.slowest, *slow])
    found.seconds = now
    found.rates = _rates(spans, now)
    return found


def _rates(spans: list[tuple[float, float, int]], seconds: float) -> list[float]:
    """Images per second of each interval; the images of a shard count evenly over the time it took."""
    if not seconds:
        return []
    width = seconds / INTERVALS
    edges = np.arange(INTERVALS + 1) * width
    total = np.zeros(INTERVALS)
    for begin, end, images in spans:
        inside = np.clip(np.minimum(edges[1:], end) - np.maximum(edges[:-1], begin), 0, None)
        total += images * inside / max(end - begin, 1e-9)
    return [float(one) for one in total / width]
