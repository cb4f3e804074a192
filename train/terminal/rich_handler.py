"""Messages and progress bars on one rich console, so that messages are printed above a bar and do not break it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from logging import LogRecord
from typing import NoReturn

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from stageproof.runtime.cli.messages import LOGGER, CommandHandler, shown
from stageproof.runtime.text.escapes import drawable, line
from stageproof.train.terminal.bars import display, displayed_by

_REFRESH_S = 0.1
"""Minimum time between two drawings of a bar."""


class RichHandler(CommandHandler):
    """Prints records on a rich console: the text as it is, not wrapped, so that a terminal's own wrapping copies well.

    rich's own handler adds time, level and path, and breaks lines.
    """

    def __init__(self) -> None:
        super().__init__()
        self.console = _Console(file=drawable(sys.stderr))  # bars move the cursor; records are escaped when formatted

    def emit(self, record: LogRecord) -> None:
        """Print the record above the bars."""
        self.console.print(Text(self.format(record)), soft_wrap=True)


class _Console(Console):
    def on_broken_pipe(self) -> NoReturn:
        raise


class Bars:
    """The `Display` of a terminal.

    Bars are drawn when their work advances, not by a thread, which would disturb what a benchmark measures.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._drawn = 0.0
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}

    def update(self, what: str, done: int, total: int) -> None:
        """Show that `done` of `total` steps are finished; the first call creates the bar."""
        if self._bars is None:
            columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=None))
            self._bars = progress(self.console, *columns, MofNCompleteColumn(), TimeRemainingColumn(), redraw=False)
            self._bars.start()
        if what not in self._tasks:
            self._tasks[what] = self._bars.add_task(line(what), total=total)
        self._bars.update(self._tasks[what], completed=done)
        now = time.monotonic()
        if now - self._drawn >= _REFRESH_S or done in (0, total):
            self._drawn = now
            self._bars.refresh()

    def remove(self, what: str) -> None:
        """Remove the bar, if it exists."""
        if self._bars is None or what not in self._tasks:
            return
        self._bars.remove_task(self._tasks.pop(what))
        if not self._tasks:
            self._bars.stop()
            self._bars = None


def progress(console: Console, *columns: ProgressColumn, redraw: bool) -> Progress:
    """Bars that vanish when they are stopped. redraw: redraw them in a thread, for times that count down."""
    # rich would redirect standard output and error past `runtime.text.escapes.Escaping`.
    return Progress(
        *columns, console=console, auto_refresh=redraw, transient=True, redirect_stdout=False, redirect_stderr=False
    )


@contextmanager
def on_stderr() -> Iterator[None]:
    """While it lasts, log records are printed on standard error, and progress bars drawn there if it is a terminal."""
    with ExitStack() as stack:
        stack.enter_context(shown(RichHandler))
        console = next(handler.console for handler in LOGGER.handlers if isinstance(handler, RichHandler))
        if console.is_terminal:
            stack.enter_context(displayed_by(Bars(console)))
        yield


def terminal() -> Console | None:
    """The console of the command if it is a terminal, else None."""
    found = display()
    return found.console if isinstance(found, Bars) else None
