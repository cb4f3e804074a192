"""Opening of untrusted paths: regular files only, without blocking; and appending all of some data, or none.

Reading a FIFO blocks, reading /dev/zero does not end, a socket cannot be read. The check is made on the open file, so
that a path replaced between check and use has no effect (no TOCTOU race).
"""

from __future__ import annotations

import contextlib
import os
import stat
from io import BufferedReader
from pathlib import Path
from typing import IO

_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
}


class NotARegularFileError(OSError):
    """The path is a device, FIFO, socket or folder."""


class TooLargeError(OSError):
    """The file has more bytes than the limit."""


def open_regular(path: Path | str) -> BufferedReader:
    """The file, opened for reading bytes. Raises OSError; NotARegularFileError if it is not a regular file."""
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
    """The content of a regular file. Raises OSError as `open_regular`, and TooLargeError above `limit` bytes."""
    with open_regular(path) as file:
        content = file.read(-1 if limit is None else limit + 1)
    if limit is not None and len(content) > limit:
        raise TooLargeError(27, f"it has more than {limit} bytes", str(path))  # 27: EFBIG
    return content


def read_text(path: Path | str, limit: int | None = None, encoding: str = "utf-8") -> str:
    """As `read_regular`, decoded. Raises UnicodeDecodeError too."""
    return read_regular(path, limit).decode(encoding)


def private(path: str, flags: int) -> int:
    """Opener for `open`: a new file is accessible by its owner only, and opening a FIFO does not block."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0), 0o600)


def append(file: IO[bytes], data: bytes, *, sync: bool = False) -> None:
    """Append `data`; if that fails, truncate the file to its former length. sync: return after the data is on disk.

    Raises OSError.
    """
    end = file.seek(0, os.SEEK_END)
    left = memoryview(data)
    try:
        while left:
            left = left[file.write(left) :]
        if sync:
            file.flush()
            getattr(os, "fdatasync", os.fsync)(file.fileno())
    except OSError:
        with contextlib.suppress(OSError):
            os.ftruncate(file.fileno(), end)
        raise


def _kind(path: Path | str) -> str | None:
    """``"a socket"`` if the path is one, which `open` rejects; otherwise None."""
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116  a str or bytes path too
    except OSError:
        return None
    return _KINDS[stat.S_IFSOCK] if stat.S_ISSOCK(mode) else None


def _not_regular(path: Path | str, kind: str) -> NotARegularFileError:
    return NotARegularFileError(22, f"it is {kind}, expected a regular file", str(path))  # 22: EINVAL
