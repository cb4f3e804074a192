"""Waiting until a process is at rest, so that it costs the next one timed nothing."""

from __future__ import annotations

import time
from collections.abc import Callable

PAUSE_S = 0.003
_AT_MOST_S = 0.2
"""Longest wait for thread pools that do not come to rest."""


def until_at_rest(cpu_seconds: Callable[[], float]) -> None:
    """Wait until a process uses no CPU: thread pools spin for up to 50 ms after an answer, at others' cost.

    cpu_seconds: what the process has used so far, such as `time.process_time`.
    """
    until = time.perf_counter() + _AT_MOST_S
    spent, still = cpu_seconds(), 0
    # More than once, since one that waits for a processor uses none either.
    while still < 3 and time.perf_counter() < until:
        time.sleep(PAUSE_S)
        before, spent = spent, cpu_seconds()
        still = still + 1 if spent - before < PAUSE_S / 20 else 0
