"""Waits until a process is idle, so that its threads do not slow down the next measurement."""

from __future__ import annotations

import time
from collections.abc import Callable

PAUSE_S = 0.003
_AT_MOST_S = 0.2
"""Maximum wait for thread pools that never become idle."""


def wait_until_idle(cpu_seconds: Callable[[], float]) -> None:
    """Wait until a process uses no CPU: thread pools busy-wait for up to 50 ms after an inference.

    cpu_seconds: returns the CPU time that the process has used so far, such as `time.process_time`.
    """
    until = time.perf_counter() + _AT_MOST_S
    spent, still = cpu_seconds(), 0
    # Three times in a row, since a process that waits for a CPU uses none either.
    while still < 3 and time.perf_counter() < until:
        time.sleep(PAUSE_S)
        before, spent = spent, cpu_seconds()
        still = still + 1 if spent - before < PAUSE_S / 20 else 0
