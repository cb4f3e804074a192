"""The server scenario: images arrive at random, whether or not the last one has been answered."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


def serve(
    answer: Callable[[Sequence[int]], Sequence[bool]], rate: float, seconds: float, *, batch: int, seed: int = 0
) -> dict[str, Any]:
    """{latencies_ms, lost, seconds, batches}: how long each request took from the moment it was due.

    answer: positions of the requests to answer together → whether each has an answer.
    rate: requests a second on average; their gaps are exponential (a Poisson process, as MLPerf's Server scenario).
    seconds: for which requests arrive; all of them are waited for.
    batch: most requests taken together. What waits when the last answer is out is taken, so nobody waits for company.

    A request's clock runs from when it was due, not from when it was taken: waiting in the queue is what hurts.
    """
    rng = np.random.default_rng(seed)
    due = np.cumsum(rng.exponential(1 / rate, max(1, round(2 * rate * seconds))))
    due = due[due < seconds]
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
