"""Files written whole or not at all: under a temporary name, flushed to disk, then renamed."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from stageproof.serving.archive.errors import ArchiveError

TEMPORARY = ".writing-"
"""Prefix of unfinished files; the next run removes those that a killed one left."""


def write_whole(path: Path, content: bytes, mode: int = 0o666) -> None:
    """Write `content` to `path`, replacing an existing file. After a crash at any moment the path has the old content,
    the new one, or does not exist. mode: permissions, less the umask. Raises ArchiveError, with `path` unchanged."""
    temporary = path.with_name(f"{TEMPORARY}{secrets.token_hex(6)}-{path.name}")
    try:
        with open(temporary, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise not_written(path, error) from error


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to disk, a rename included (POSIX fsync on the directory)."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sweep(folder: Path) -> int:
    """Remove the unfinished files in `folder`; their number."""
    left = list(folder.glob(f"{TEMPORARY}*"))
    for path in left:
        path.unlink(missing_ok=True)
    return len(left)


def not_written(path: Path, error: OSError) -> ArchiveError:
    """The error for a file that cannot be written."""
    return ArchiveError(
        f"{path} cannot be written: {error.strerror or error}. Finished parts are kept. Correct that, and run the same "
        "command again to continue."
    )
