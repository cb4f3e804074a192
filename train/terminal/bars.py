"""`bar`: the progress of long work and its time left, drawn by the `Display` of the command, if there is one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol


class Display(Protocol):
    """Shows progress bars, each identified by its description."""

    def update(self, what: str, done: int, total: int) -> None:
        """Show that `done` of `total` steps are finished; the first call creates the bar."""
        ...

    def remove(self, what: str) -> None:
        """Remove the bar, if it exists."""
        ...


_displays: list[Display] = []


def display() -> Display | None:
    """The display of this process; None if bars are not shown: in a library, in a pipe."""
    return _displays[-1] if _displays else None


@contextmanager
def displayed_by(new: Display) -> Iterator[None]:
    """While it lasts, `new` shows the bars of this process."""
    _displays.append(new)
    try:
        yield
    finally:
        _displays.remove(new)


@contextmanager
def bar(what: str, total: int) -> Iterator[Callable[..., None]]:
    """A bar for `total` steps; yields a function that is called after each step, or with a number of steps.

    Where bars are not shown, nothing is: the caller logs what it does before.
    """
    shows, done = display(), 0

    def advance(steps: int = 1) -> None:
        nonlocal done
        done += steps
        if shows is not None:
            shows.update(what, done, total)

    if shows is not None:
        shows.update(what, 0, total)
    try:
        yield advance
    finally:
        if shows is not None:
            shows.remove(what)
