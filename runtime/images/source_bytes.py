"""`encoded`: reads a path, encoded image or file object into bytes."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path
from typing import Any

from stageproof.runtime.errors import ImageError
from stageproof.runtime.headers.limits import MAX_FILE_BYTES

_PART = 1 << 20
"""Bytes per read from a file object."""


def encoded(source: Any) -> tuple[bytes, str]:
    """The bytes of a path, encoded image or binary file object, and a name for messages.

    Raises ImageError for unreadable, empty or non-regular files, and for more than `MAX_FILE_BYTES`.
    """
    if isinstance(source, (str, os.PathLike)):
        path = os.fsdecode(source)
        data, where = _read_file(path), f"{path!r}"
    elif isinstance(source, (bytes, bytearray, memoryview)):
        size = memoryview(source).nbytes
        where = f"the encoded image of {size} bytes"
        if size > MAX_FILE_BYTES:
            raise _too_long(where, size)
        data = bytes(source)
    elif hasattr(source, "read"):
        data, where = _read_stream(source), "the file object"
    else:
        raise ImageError(
            f"got {type(source).__module__}.{type(source).__qualname__}; expected a path, the bytes of an image file, "
            "a binary file object, a PIL image or a numpy array."
        )
    if not data:
        raise ImageError(f"{where} is empty (0 bytes); expected an image file. Copy or export it again.")
    return data, where


def known_size(source: Any) -> int:
    """Size in bytes of a path or encoded image, before reading it; 0 if unknown."""
    try:
        if isinstance(source, (str, os.PathLike)):
            return os.stat(source).st_size  # noqa: PTH116  (Path("") is the current folder)
        return memoryview(source).nbytes
    except (OSError, ValueError, TypeError):
        return 0


def _read_file(path: str) -> bytes:
    try:
        status = Path(path).stat() if path else os.stat(path)  # noqa: PTH116  (Path("") is the current folder)
        if stat.S_ISDIR(status.st_mode):
            raise ImageError(
                f"{path!r} is a folder; expected one image file. Pass the images in it, which "
                "runtime.images.folders.images_in lists, to predict_batch() or predict_study()."
            )
        _check_regular(path, status)  # opening a pipe or device could block
        with open(path, "rb", opener=_opener) as file:
            _check_regular(path, os.fstat(file.fileno()))  # it may have been replaced meanwhile
            data = file.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise _too_long(repr(path), len(data))
        return data
    except ImageError:  # ImageError is a ValueError too
        raise
    except FileNotFoundError as error:
        raise ImageError(f"no such file: {path!r}. Check the path, and the folder it is relative to.") from error
    except PermissionError as error:
        raise ImageError(f"{path!r} may not be read by this user. Change its permissions.") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or "not a valid file name"
        raise ImageError(f"{path!r} cannot be read: {reason}.") from error


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # opening a pipe would block


def _check_regular(path: str, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ImageError(f"{path!r} is not a regular file; expected an image file. Read it and pass its bytes.")
    if status.st_size > MAX_FILE_BYTES:
        raise _too_long(repr(path), status.st_size)


def _too_long(where: str, size: int) -> ImageError:
    return ImageError(f"{where} has {size} bytes; at most {MAX_FILE_BYTES} are read. Pass one slice as PNG.")


def _read_stream(stream: Any) -> bytes:
    try:
        # From the start, as Pillow does: a buffer that was just written is positioned at its end.
        if hasattr(stream, "seekable") and stream.seekable():
            stream.seek(0)
        data = _all_of(stream)
    except ImageError:
        raise
    except Exception as error:
        reason = type(error).__name__
        raise ImageError(f"the file object cannot be read ({reason}). Pass a path or bytes.") from error
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise ImageError(f"the file object returned {type(data).__name__}, expected bytes. Open it in mode 'rb'.")
    return bytes(data)


def _all_of(stream: Any) -> Any:
    """All data, read in parts to apply the size limit: a pipe or socket may not end."""
    try:
        part = stream.read(_PART)
    except TypeError:  # a custom file object without a size argument
        return stream.read()
    if not isinstance(part, (bytes, bytearray, memoryview)):
        return part
    read = io.BytesIO()
    while part:
        read.write(part)
        if read.tell() > MAX_FILE_BYTES:
            raise ImageError(
                f"the file object has more than {MAX_FILE_BYTES} bytes, the maximum. Pass one slice as PNG."
            )
        part = stream.read(_PART)
    return read.getvalue()
