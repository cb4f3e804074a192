"""Inputs at any URL that fsspec can open: object stores, web servers, SSH."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

from stageproof.runtime.cli.extras import require
from stageproof.runtime.errors import InputError, StageproofError
from stageproof.runtime.headers.signatures import HEAD
from stageproof.runtime.images.debris import is_debris
from stageproof.runtime.images.folders import kind_of_other
from stageproof.serving.archive.inputs.entry import Entry, Skipped
from stageproof.serving.archive.inputs.folders import DEBRIS

_MAGIC = "*?["


def found(url: str, skipped: Skipped) -> Iterator[Entry]:
    """The images at a URL of one file, a folder, or a pattern, sorted; tar and zip files as single entries.

    Raises InputError if nothing is there. The listing of a folder is held in memory, as fsspec returns it.
    """
    system, path = _system(url)
    try:
        if any(sign in path for sign in _MAGIC):
            details = system.glob(path, detail=True)
        elif system.isdir(path):
            details = system.find(path, detail=True)
        else:
            details = {path: system.info(path)}
    except Exception as error:  # each protocol raises exceptions of its own
        raise _unreadable(url, error) from error
    files = {name: one for name, one in sorted(details.items()) if one.get("type", "file") == "file"}
    if not files:
        raise InputError(f"{url} has no file. Check the address and the pattern.")
    top = path.rstrip("/").count("/")
    for name, one in files.items():
        if any(is_debris(part) for part in name.split("/")[top + 1 :]):
            skipped.add(DEBRIS)
            continue

        def head(name: str = name) -> bytes:
            return bytes(system.cat_file(name, start=0, end=HEAD))

        container = name.lower().endswith((".tar", ".zip"))
        try:
            other = None if container else kind_of_other(name, head)
        except Exception as error:
            raise _unreadable(url, error) from error
        if other is not None:
            skipped.add(other)
            continue
        yield Entry(system.unstrip_protocol(name), size=one.get("size"))


def opened(url: str) -> BinaryIO:
    """The file at a URL, for reading bytes at any position. Raises OSError for whatever the protocol raises."""
    system, path = _system(url)
    try:
        file: BinaryIO = system.open(path, "rb")
    except Exception as error:
        raise OSError(f"it cannot be opened ({type(error).__name__})") from error
    return file


def _system(url: str) -> tuple[Any, str]:
    require("archive", "fsspec")
    from fsspec.core import url_to_fs

    try:
        system, path = url_to_fs(url)
    except (ImportError, ValueError) as error:  # the package of a protocol is not installed; an unknown protocol
        raise InputError(f"{url} cannot be opened: {error}. Install that package, or mount the files.") from error
    return system, path


def _unreadable(url: str, error: Exception) -> StageproofError:
    return InputError(f"{url} cannot be listed: {type(error).__name__}: {error}. Check the address and credentials.")
