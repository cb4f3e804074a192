"""Shows the messages of a command: log records of the package as lines on standard error.

Modules that report progress of long work log to `logging.getLogger(__name__)`, below the logger `stageproof`. A library
prints nothing: only a command attaches a handler, with `shown`. Levels: DEBUG detail, INFO what is being done, WARNING
what the user should act on.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from stageproof.runtime.text import escapes

LOGGER = logging.getLogger("stageproof")
"""Parent of all loggers of the package."""


class LineFormatter(logging.Formatter):
    """Formats a record as one escaped line: its text, with the level in front from WARNING on."""

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        return escapes.line(text if record.levelno < logging.WARNING else f"{record.levelname}: {text}")


class CommandHandler(logging.StreamHandler):
    """Prints records as lines on standard error, for commands.

    Errors propagate, as from `print`: `runtime.cli.exit_status.exit_status` handles a closed pipe. `logging` would
    print a traceback and go on.
    """

    def __init__(self) -> None:
        super().__init__(sys.stderr)
        self.setFormatter(LineFormatter())

    def handleError(self, record: logging.LogRecord) -> NoReturn:  # noqa: N802  (logging's name)
        """Raise the exception that is being handled."""
        raise


@contextmanager
def shown(handler: type[CommandHandler] = CommandHandler) -> Iterator[None]:
    """While it lasts, records from INFO on are printed on standard error. Does nothing within another `shown`.

    They do not propagate to the root logger: a library that configures it would print them again. Also a decorator,
    for the main function of a command.
    """
    if is_shown():
        yield
        return
    new, before = handler(), (LOGGER.level, LOGGER.propagate)
    LOGGER.addHandler(new)
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False
    try:
        yield
    finally:
        LOGGER.removeHandler(new)
        LOGGER.setLevel(before[0])
        LOGGER.propagate = before[1]


def is_shown() -> bool:
    """Whether this process prints its messages: it is that of a command."""
    return any(isinstance(handler, CommandHandler) for handler in LOGGER.handlers)
