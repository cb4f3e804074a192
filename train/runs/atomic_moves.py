"""`put`: replaces several files together; after an error all of the old files are back."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Move:
    """Replacement of one file or folder by another. All three paths are on one file system."""

    new: Path | None
    """None: remove what is at `place`."""
    place: Path
    old: Path
    """Backup of what was at `place` until all moves are done; the caller removes it."""

    def do(self) -> None:
        """Replace. A file is replaced atomically; a folder is missing for a moment."""
        if self.place.is_dir():
            self.place.rename(self.old)
        elif self.place.exists():
            _link(self.place, self.old)
        if self.new is not None:
            self.new.replace(self.place)
        elif self.place.exists():
            self.place.unlink()

    def undo(self) -> None:
        """Restore the old state, also after `do` failed halfway."""
        if self.new is not None and not self.new.exists():
            self.place.replace(self.new)
        if self.old.exists() and not (self.old.is_dir() and self.place.exists()):
            self.old.replace(self.place)


def put(moves: Sequence[Move]) -> None:
    """Perform the moves, in order.

    Raises OSError if one of them fails, after undoing those before it. If the process is killed, some moves are done
    and others are not, so the caller must order them such that any prefix is consistent.
    """
    begun: list[Move] = []
    try:
        for move in moves:
            begun.append(move)
            move.do()
    except BaseException:
        for move in reversed(begun):
            with suppress(OSError):  # report the first error
                move.undo()
        raise


def flush(folder: Path) -> None:
    """fsync all files in `folder`, so that a later rename cannot become visible before their content."""
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
