"""Several files put in their places together: all of them are the new ones, or, after an error, the old ones."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Move:
    """A file or folder that takes the place of another; all three paths are on one file system."""

    new: Path | None
    """None takes away what is at `place`."""
    place: Path
    old: Path
    """Where what was at `place` is kept until all moves are done; the caller removes it."""

    def do(self) -> None:
        """A file at `place` is the old or the new one at every moment; a folder may be missing for one."""
        if self.place.is_dir():
            self.place.rename(self.old)
        elif self.place.exists():
            _link(self.place, self.old)
        if self.new is not None:
            self.new.replace(self.place)
        elif self.place.exists():
            self.place.unlink()

    def undo(self) -> None:
        """Also after half of `do`."""
        if self.new is not None and not self.new.exists():
            self.place.replace(self.new)
        if self.old.exists() and not (self.old.is_dir() and self.place.exists()):
            self.old.replace(self.place)


def put(moves: Sequence[Move]) -> None:
    """Carry the moves out, in order.

    Raises OSError when one of them fails; those before it are undone then. A process that is killed in between leaves
    some done and the others not: the caller orders them so that this misleads nobody.
    """
    with _undone_after_an_error() as begun:
        for move in moves:
            begun.append(move)
            move.do()


@contextmanager
def _undone_after_an_error() -> Iterator[list[Move]]:
    begun: list[Move] = []
    try:
        yield begun
    except BaseException:
        for move in reversed(begun):
            with suppress(OSError):  # the first error is the one to report
                move.undo()
        raise


def flush(folder: Path) -> None:
    """Return when the files in `folder` are on the disk: a name must not appear before what it names."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        part = target.with_name(f"{target.name}.part")
        shutil.copy2(source, part)
        part.replace(target)
