"""Opening files that others may have put in place: regular files alone, without waiting.

A FIFO waits for a writer, /dev/zero never ends, a socket cannot be read: none of them is an image, a table or a model.
The check is of what was opened, so a path that changes between a check and its use makes no difference.
"""

from __future__ import annotations

import os
import stat
from io import BufferedReader
from pathlib import Path

_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
}


class NotARegularFileError(OSError):
    """What was opened is a device, a FIFO, a socket or a folder."""


class TooLargeError(OSError):
    """The file has more bytes than the caller takes."""


def open_regular(path: Path | str) -> BufferedReader:
    """The file, to read bytes from. Raises OSError, for all but a regular file a NotARegularFileError."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOCTTY", 0)
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        kind = _kind(path)
        if kind is None:
            raise
        raise _not_regular(path, kind) from error
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise _not_regular(path, _KINDS.get(stat.S_IFMT(mode), "no file"))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: Path | str, limit: int | None = None) -> bytes:
    """The content of a regular file. Raises OSError as `open_regular`, and a TooLargeError beyond `limit` bytes."""
    with open_regular(path) as file:
        content = file.read(-1 if limit is None else limit + 1)
    if limit is not None and len(content) > limit:
        raise TooLargeError(27, f"it has more than {limit} bytes", str(path))  # 27: EFBIG
    return content


def read_text(path: Path | str, limit: int | None = None, encoding: str = "utf-8") -> str:
    """The same as text. UnicodeDecodeError passes to the caller."""
    return read_regular(path, limit).decode(encoding)


def _kind(path: Path | str) -> str | None:
    """What is there that cannot even be opened, as a socket; None for anything else."""
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116  a str or bytes path too
    except OSError:
        return None
    return _KINDS[stat.S_IFSOCK] if stat.S_ISSOCK(mode) else None


def _not_regular(path: Path | str, kind: str) -> NotARegularFileError:
    return NotARegularFileError(22, f"it is {kind}, expected a regular file", str(path))  # 22: EINVAL
