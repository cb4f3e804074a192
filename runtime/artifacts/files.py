"""The bytes of a file of a bundle, read once: a regular file of bounded size. Nothing else opens it by its name."""

from __future__ import annotations

import os
from pathlib import Path

from stageproof.runtime.errors import BundleError
from stageproof.runtime.system.regular_files import NotARegularFileError, open_regular

LARGEST_MODEL = 2 << 30
"""Bytes of an artifact: no protobuf message is larger, and twenty times the largest network here."""


def read_once(path: Path, most: int, what: str, *, again: str = "Copy the bundle again.") -> bytes:
    """The content of a regular file of at most `most` bytes.

    what: of the file, for messages, such as "manifest".
    again: what to do about a file that cannot be read.

    Raises BundleError for a larger file, a folder, a FIFO (which would wait for ever), a device (which would never
    end), and a file that grows or shrinks meanwhile; FileNotFoundError passes to the caller.
    """
    try:
        with open_regular(path) as file:
            status = os.fstat(file.fileno())
            if status.st_size > most:
                raise BundleError(f"{path} has {status.st_size} bytes, expected at most {most}: it is no {what}.")
            content = file.read(status.st_size + 1)
    except FileNotFoundError:
        raise
    except NotARegularFileError as error:
        raise BundleError(f"{path} is no regular file. {again}") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise BundleError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}. {again}") from error
    if len(content) != status.st_size:
        raise BundleError(f"{path} changed while it was read. Nothing of it was loaded. {again}")
    return content
