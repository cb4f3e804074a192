"""SIGHUP while a process starts: it waits until there is a handler. By default, it would end the process."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def held_back() -> Iterator[None]:
    """While it lasts, SIGHUP waits until `let_through`, also in processes that are started."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def let_through() -> None:
    """From now on, SIGHUP reaches the handler that was set."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
