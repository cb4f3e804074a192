"""Folders in which a command builds its output: private, locked while it runs, removed at a later start after a kill.

A work folder has mode 0700 and holds a marker file. The process that builds in it holds flock(2) on the folder, which
the kernel releases however the process ends. So a folder with the marker that this user owns and nobody holds was left
behind, and `sweep` removes it; anything else stays.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # pragma: no cover  Windows
    fcntl = None  # type: ignore[assignment]

_HAS_LOCKS = fcntl is not None
MARKER = ".stageproof-work"
PREFIX = "stageproof-"
"""Of work folders in the system's temporary folder."""


@contextmanager
def work_folder(parent: Path | None = None, prefix: str = PREFIX) -> Iterator[Path]:
    """A new private folder in `parent` (None: the system's temporary folder), removed at the end unless renamed.

    Work folders of the same prefix that a killed process left in `parent` are removed first.
    Raises OSError when it cannot be created.
    """
    where = Path(tempfile.gettempdir()) if parent is None else parent
    sweep(where, f"{prefix}*")
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=where))
    holder = hold(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        release(holder)


def hold(folder: Path) -> int | None:
    """Mark `folder` as a work folder and lock it for this process; the descriptor that `release` takes.

    None where this system or file system has no such locks: the folder is then never swept.
    """
    folder.chmod(0o700)
    holder = _lock(folder)
    if holder is not None:
        (folder / MARKER).touch(0o600)
    return holder


def unmark(folder: Path) -> None:
    """Make of a work folder an ordinary one, to be renamed into its place."""
    (folder / MARKER).unlink(missing_ok=True)


def release(holder: int | None) -> None:
    """Unlock what `hold` locked."""
    if holder is not None:
        os.close(holder)


def sweep(parent: Path, pattern: str, spare: Callable[[Path], bool] = lambda folder: False) -> list[Path]:
    """Remove work folders in `parent` that a killed process of this user left, and return them.

    pattern: which names, as Path.glob takes it.
    spare: says of a folder that it is kept, such as one with a checkpoint.
    """
    removed = []
    found: list[Path] = []
    with suppress(OSError):
        found = sorted(parent.glob(pattern))
    for folder in found:
        holder = _lock(folder)
        if holder is None:
            continue
        try:
            if (folder / MARKER).is_file() and not spare(folder):
                shutil.rmtree(folder, ignore_errors=True)
                removed.append(folder)
        finally:
            release(holder)
    return removed


def make_private(folder: Path) -> None:
    """Give everything in `folder`, and itself, to this user alone: folders 0700, files 0600. OSError passes."""
    _set_modes(folder, 0o700, 0o600)


def make_readable(folder: Path) -> None:
    """Let everybody read what is in `folder`: folders 0755, files 0644. For what holds nothing of a patient."""
    _set_modes(folder, 0o755, 0o644)


def _set_modes(folder: Path, of_folders: int, of_files: int) -> None:
    for place, _, names in os.walk(folder):
        Path(place).chmod(of_folders)
        for name in names:
            path = Path(place) / name
            if not path.is_symlink():
                path.chmod(of_files)


def _lock(folder: Path) -> int | None:
    """A descriptor of `folder`, locked; None where it is no folder of this user's own, or another process holds it."""
    if not _HAS_LOCKS:  # pragma: no cover
        return None
    try:
        status = folder.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            return None
        holder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(holder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        here = os.fstat(holder)
        same = folder.lstat()  # renamed or replaced in between
        if (here.st_dev, here.st_ino) == (same.st_dev, same.st_ino):
            return holder
    except OSError:
        pass
    os.close(holder)
    return None
