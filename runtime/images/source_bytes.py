"""`encoded`: reads a path, encoded image or file object into bytes."""

from __future__ import annotations

import io
import os
from typing import Any

from stageproof.runtime.errors import ImageError
from stageproof.runtime.headers.limits import MAX_FILE_BYTES
from stageproof.runtime.system.regular_files import NotARegularFileError, open_regular

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
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            data = b"" if size > MAX_FILE_BYTES else file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise ImageError(_unreadable(path, error)) from error
    if max(size, len(data)) > MAX_FILE_BYTES:
        raise _too_long(repr(path), max(size, len(data)))
    return data


def _unreadable(path: str, error: Exception) -> str:
    if os.path.isdir(path):  # noqa: PTH112  (Path("") is the current folder, and Path.is_dir may raise)
        return (
            f"{path!r} is a folder; expected one image file. Pass the images in it, which "
            "runtime.images.folders.images_in lists, to predict_batch() or predict_study()."
        )
    if isinstance(error, NotARegularFileError):
        return f"{path!r} is not a regular file; expected an image file. Read it and pass its bytes."
    if isinstance(error, FileNotFoundError):
        return f"no such file: {path!r}. Check the path, and the folder it is relative to."
    if isinstance(error, PermissionError):
        return f"{path!r} may not be read by this user. Change its permissions."
    return f"{path!r} cannot be read: {getattr(error, 'strerror', None) or 'not a valid file name'}."


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
