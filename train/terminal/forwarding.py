"""Log records and progress bars of a child process, sent to its parent, which handles them as its own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from logging.handlers import QueueHandler
from queue import SimpleQueue
from typing import Any

from stageproof.runtime.cli.messages import LOGGER
from stageproof.train.terminal.bars import display, displayed_by

RECORD, BAR = "record", "bar"
"""Kinds of messages."""

Send = Callable[[tuple[str, Any]], None]
"""Sends (kind, content) to the parent."""


@dataclass(frozen=True)
class Wanted:
    """What a parent handles, for the child not to send anything else."""

    level: int
    """Lowest level of records."""
    bars: bool

    @classmethod
    def here(cls) -> Wanted:
        """What this process handles."""
        return cls(LOGGER.getEffectiveLevel(), display() is not None)


@contextmanager
def forwarded(send: Send, wanted: Wanted) -> Iterator[None]:
    """While it lasts, this child process sends its log records and bars to its parent."""
    handler = _Sender(send)
    handler.setLevel(wanted.level)
    LOGGER.addHandler(handler)
    LOGGER.setLevel(min(wanted.level, logging.INFO))  # what else handles records here may want those of INFO
    with ExitStack() as stack:
        stack.callback(LOGGER.removeHandler, handler)
        if wanted.bars:
            stack.enter_context(displayed_by(_SentBars(send)))
        yield


class _Sender(QueueHandler):
    """`QueueHandler` formats a record before it is pickled, since its arguments may not be picklable."""

    def __init__(self, send: Send) -> None:
        super().__init__(SimpleQueue())  # not used: `enqueue` sends
        self._send = send

    def enqueue(self, record: logging.LogRecord) -> None:
        self._send((RECORD, record))


@dataclass(frozen=True)
class _SentBars:
    send: Send

    def update(self, what: str, done: int, total: int) -> None:
        self.send((BAR, (what, done, total)))

    def remove(self, what: str) -> None:
        self.send((BAR, (what, None, 0)))


class Receiver:
    """Handles the messages of a child process; a context manager that removes the bars of a child that died."""

    def __init__(self) -> None:
        self._open: set[str] = set()

    def take(self, kind: str, content: Any) -> bool:
        """Handle a message; False if it is of another kind."""
        if kind == RECORD:
            logger = logging.getLogger(content.name)
            if logger.isEnabledFor(content.levelno):
                logger.handle(content)
        elif kind == BAR:
            self._draw(*content)
        return kind in (RECORD, BAR)

    def _draw(self, what: str, done: int | None, total: int) -> None:
        shows = display()
        if shows is not None and done is not None:
            self._open.add(what)
            shows.update(what, done, total)
        elif shows is not None:
            self._open.discard(what)
            shows.remove(what)

    def __enter__(self) -> Receiver:
        return self

    def __exit__(self, *_: object) -> None:
        for what in list(self._open):
            self._draw(what, None, 0)
