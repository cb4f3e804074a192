"""`read_once`: the content of a bundle's file, a regular file of limited size. No engine opens the file by its path."""

from __future__ import annotations

import os
from pathlib import Path

from stageproof.runtime.errors import BundleError
from stageproof.runtime.system.regular_files import NotARegularFileError, open_regular

LARGEST_MODEL = 2 << 30
"""Limit on the bytes of an artifact: the maximum of a protobuf message, and twenty times the largest network here."""


def read_once(path: Path, most: int, what: str, *, again: str = "Copy the bundle again.") -> bytes:
    """The content of a regular file of at most `most` bytes.

    what: kind of file, for messages, such as "manifest".
    again: advice in messages about a file that cannot be read.

    Raises BundleError for a larger file, a folder, a FIFO (reading blocks), a device (reading does not end), and a file
    whose size changes while it is read; FileNotFoundError if it does not exist.
    """
    try:
        with open_regular(path) as file:
            status = os.fstat(file.fileno())
            if status.st_size > most:
                raise BundleError(f"{path} has {status.st_size} bytes, expected at most {most} for a {what}. {again}")
            content = file.read(status.st_size + 1)
    except FileNotFoundError:
        raise
    except NotARegularFileError as error:
        raise BundleError(f"{path} is not a regular file. {again}") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise BundleError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}. {again}") from error
    if len(content) != status.st_size:
        raise BundleError(f"{path} changed while it was read. Nothing of it was loaded. {again}")
    return content
