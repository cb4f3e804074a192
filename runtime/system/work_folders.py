"""Temporary folders in which a command builds its output: private, locked, and cleaned up after a killed process.

A work folder has mode 0700 and contains a marker file. Its process holds a flock(2) lock on the folder, which the
kernel releases when the process ends. A folder with the marker, owned by this user and not locked, is therefore
abandoned, and `sweep` removes it; all other folders are kept.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from stageproof.runtime.errors import InputError

try:
    import fcntl
except ImportError:  # pragma: no cover  Windows
    fcntl = None  # type: ignore[assignment]

_HAS_LOCKS = fcntl is not None
MARKER = ".stageproof-work"
PREFIX = "stageproof-"
"""Name prefix of work folders in the system's temporary folder."""


@contextmanager
def work_folder(parent: Path | None = None, prefix: str = PREFIX) -> Iterator[Path]:
    """Context manager: a new private folder in `parent` (None: the system's temporary folder), removed on exit unless
    renamed.

    First removes abandoned work folders of the same prefix in `parent`. Raises OSError if it cannot be created.
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


def write_together(parent: Path, texts: Mapping[str, str]) -> None:
    """Write files, name → text, to `parent`; none is replaced before all are written. Raises InputError if they cannot
    be."""
    try:
        with work_folder(parent, f".{Path(next(iter(texts))).stem}-") as folder:
            for name, text in texts.items():
                (folder / name).write_text(text, encoding="utf-8")
            for name in texts:
                (folder / name).replace(parent / name)
    except OSError as error:
        raise InputError(
            f"{parent / next(iter(texts))} cannot be written: {error}. Free disk space, and run it again."
        ) from error


def hold(folder: Path) -> int | None:
    """Mark `folder` as a work folder and lock it for this process. Returns a descriptor for `release`.

    None if the system or file system does not support the lock; the folder is then never removed by `sweep`.
    """
    folder.chmod(0o700)
    holder = _lock(folder)
    if holder is not None:
        (folder / MARKER).touch(0o600)
    return holder


def unmark(folder: Path) -> None:
    """Turn a work folder into an ordinary folder, before it is renamed to its final path."""
    (folder / MARKER).unlink(missing_ok=True)


def release(holder: int | None) -> None:
    """Unlock a folder locked by `hold`."""
    if holder is not None:
        os.close(holder)


def sweep(parent: Path, pattern: str, spare: Callable[[Path], bool] = lambda folder: False) -> list[Path]:
    """Remove abandoned work folders of this user in `parent`. Returns the removed ones.

    pattern: names, as for Path.glob.
    spare: predicate for folders to keep, such as those with a checkpoint.
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
    """Make `folder` and its content accessible by their owner only: folders 0700, files 0600. Raises OSError."""
    _set_modes(folder, 0o700, 0o600)


def make_readable(folder: Path) -> None:
    """Make `folder` and its content readable by all users: folders 0755, files 0644. Not for patient data."""
    _set_modes(folder, 0o755, 0o644)


def _set_modes(folder: Path, of_folders: int, of_files: int) -> None:
    for place, _, names in os.walk(folder):
        Path(place).chmod(of_folders)
        for name in names:
            path = Path(place) / name
            if not path.is_symlink():
                path.chmod(of_files)


def _lock(folder: Path) -> int | None:
    """A descriptor of the locked `folder`; None if it is not a folder of this user or another process has locked it."""
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
