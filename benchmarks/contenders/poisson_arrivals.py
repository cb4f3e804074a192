"""The server scenario: requests arrive in a Poisson process, independently of how fast they are answered."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


def arrival_times(rate: float, seconds: float, seed: int = 0) -> np.ndarray:
    """(N,) float64, ascending: the times in [0, seconds) of a Poisson process of `rate` arrivals per second."""
    rng = np.random.default_rng(seed)
    due = np.cumsum(rng.exponential(1 / rate, max(1, round(2 * rate * seconds))))
    return due[due < seconds]


def serve(
    answer: Callable[[Sequence[int]], Sequence[bool]], rate: float, seconds: float, *, batch: int, seed: int = 0
) -> dict[str, Any]:
    """{latencies_ms, lost, seconds, batches}: latency of each request from its arrival, queueing included.

    answer: takes the positions of the requests of a batch, returns whether each was answered.
    rate: mean requests per second; intervals are exponential (Poisson process, as in MLPerf's Server scenario).
    seconds: duration of the arrivals; all requests are completed.
    batch: maximum batch size. A batch consists of the requests waiting when the previous one ends; it never waits for
        more.
    """
    due = arrival_times(rate, seconds, seed)
    latencies, lost, batches = np.zeros(len(due)), 0, 0
    position = 0
    begun = time.perf_counter()
    while position < len(due):
        wait = due[position] - (time.perf_counter() - begun)
        if wait > 0:
            time.sleep(wait)
        now = time.perf_counter() - begun
        end = min(max(int(np.searchsorted(due, now, "right")), position + 1), position + batch)
        answered = answer(range(position, end))
        latencies[position:end] = (time.perf_counter() - begun - due[position:end]) * 1e3
        lost += (end - position) - sum(map(bool, answered))
        batches += 1
        position = end
    spent = time.perf_counter() - begun
    return {"latencies_ms": latencies.round(3).tolist(), "lost": lost, "seconds": spent, "batches": batches}
