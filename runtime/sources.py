"""A path, an encoded image or a file object becomes bytes, and a name for them in messages."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

from runtime.errors import ImageError

MAX_FILE_BYTES = 1024 * 1024 * 1024
"""The largest file read: `runtime.images.MAX_PIXELS` at 16 bits and four channels take half of it uncompressed."""


def encoded(source: Any) -> tuple[bytes, str]:
    """The bytes of a path, an encoded image or a binary file object, and what to call them in messages."""
    if isinstance(source, (str, os.PathLike)):
        path = os.fsdecode(source)
        data, where = _read_file(path), f"{path!r}"
    elif isinstance(source, (bytes, bytearray, memoryview)):
        data = bytes(source)
        where = f"the encoded image of {len(data)} bytes"
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


def _read_file(path: str) -> bytes:
    try:
        status = Path(path).stat() if path else os.stat(path)  # noqa: PTH116  (Path("") is the current folder)
        if stat.S_ISDIR(status.st_mode):
            raise ImageError(
                f"{path!r} is a folder; expected one image file. Pass the images in it, which "
                "runtime.folders.images_in lists, to predict_batch() or predict_study()."
            )
        if not stat.S_ISREG(status.st_mode):  # opening a pipe or a device could wait or read for ever
            raise ImageError(f"{path!r} is not a regular file; expected an image file. Read it and pass its bytes.")
        if status.st_size > MAX_FILE_BYTES:
            raise ImageError(
                f"{path!r} has {status.st_size} bytes; at most {MAX_FILE_BYTES} are read. Pass one slice as PNG."
            )
        return Path(path).read_bytes()
    except ImageError:  # a ValueError too
        raise
    except FileNotFoundError as error:
        raise ImageError(f"no such file: {path!r}. Check the path, and the folder it is relative to.") from error
    except PermissionError as error:
        raise ImageError(f"{path!r} may not be read by this user. Change its permissions.") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or "not a valid file name"
        raise ImageError(f"{path!r} cannot be read: {reason}.") from error


def _read_stream(stream: Any) -> bytes:
    try:
        # From the start, as Pillow does: a buffer just written stands at its end.
        if hasattr(stream, "seekable") and stream.seekable():
            stream.seek(0)
        data = stream.read()
    except Exception as error:
        raise ImageError(f"the file object cannot be read ({type(error).__name__}). Pass a path or bytes.") from error
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise ImageError(f"the file object gave {type(data).__name__}, expected bytes. Open it in mode 'rb'.")
    return bytes(data)
