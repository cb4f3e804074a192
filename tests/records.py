"""What is logged, as a command shows it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from stageproof.runtime.cli.messages import LOGGER, LineFormatter


class Lines(logging.Handler):
    """Keeps the records from INFO on as lines."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.setFormatter(LineFormatter())
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@contextmanager
def logged() -> Iterator[list[str]]:
    """A list that grows by a line with each record of the package from INFO on."""
    handler, before = Lines(), LOGGER.level
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    try:
        yield handler.lines
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.setLevel(before)
