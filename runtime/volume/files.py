"""`source_files`: the files of a folder, a list of paths or a zip archive, read one at a time within limits."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stageproof.runtime.errors import ImageError, VolumeError
from stageproof.runtime.headers.limits import MAX_FILE_BYTES
from stageproof.runtime.images.debris import files_below, is_debris
from stageproof.runtime.images.source_bytes import encoded
from stageproof.runtime.system.regular_files import open_regular
from stageproof.runtime.system.zips import BOUNDED

MAX_FILES = 20_000
"""Limit on the files of a source; a study of MR has hundreds to a few thousand."""
MAX_TOTAL_BYTES = 4 << 30
"""Limit on the bytes of all members of a zip archive, decompressed."""


@dataclass(frozen=True)
class SourceFile:
    """One file of a source."""

    name: str
    """For messages: the path, or the name in the archive."""
    read: Callable[[], bytes]
    """Returns the content. Raises ImageError."""
    path: Path | None = None
    """None in an archive."""


def source_files(source: Any) -> list[SourceFile]:
    """The files of `source` in the order of their names: a folder at any depth, a zip archive, a file, or an iterable
    of paths of files and folders. Hidden files and those of operating systems are left out.

    Raises VolumeError (``unreadable``) for a missing or unreadable source, above `MAX_FILES`, and for a zip
    archive above `MAX_TOTAL_BYTES`.
    """
    paths = [source] if isinstance(source, (str, os.PathLike)) else list(_iterable(source))
    files: list[SourceFile] = []
    for one in paths:
        path = Path(os.fsdecode(one))
        if path.is_dir():
            found = files_below(path)
            if lost := [*found.unreadable, *(one for one in found.links if not Path(one).exists())]:
                # The slices of a lost end make no gap.
                raise VolumeError(
                    "unreadable", f"{str(lost[0])!r} cannot be read, and may have slices of the series. Check it."
                )
            files += [_on_disk(below) for below in found.files]
        elif not path.exists():
            raise VolumeError("unreadable", f"no such file or folder: {str(path)!r}. Check the path.")
        elif _is_zip(path):
            files += _in_zip(path)
        else:
            files.append(_on_disk(path))
        if len(files) > MAX_FILES:
            raise VolumeError(
                "unreadable", f"more than {MAX_FILES} files; pass the folder of one study, or of one series."
            )
    return sorted(files, key=lambda file: file.name)


def _iterable(source: Any) -> Iterable[Any]:
    if isinstance(source, Iterable) and not isinstance(source, (bytes, bytearray, memoryview)):
        return source
    kind = f"{type(source).__module__}.{type(source).__qualname__}"
    raise VolumeError(
        "unreadable", f"got {kind}; expected the path of a folder, zip or NIfTI file, or a list of paths."
    )


def _on_disk(path: Path) -> SourceFile:
    return SourceFile(str(path), lambda: encoded(path)[0], path)


def _is_zip(path: Path) -> bool:
    try:
        with open_regular(path) as file:
            return file.read(4) == b"PK\x03\x04"
    except OSError as error:
        raise VolumeError("unreadable", f"{str(path)!r} cannot be read: {error.strerror or error}.") from error


def _in_zip(path: Path) -> list[SourceFile]:
    """The members of an archive. Sizes are those of its directory, which reading enforces (zipfile checks neither)."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [one for one in archive.infolist() if not one.is_dir()]
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise VolumeError("unreadable", f"{str(path)!r} is a damaged zip archive. Copy or export it again.") from error
    members = [one for one in members if not any(is_debris(part) for part in one.filename.split("/"))]
    if len(members) > MAX_FILES or sum(one.file_size for one in members) > MAX_TOTAL_BYTES:
        raise VolumeError(
            "unreadable",
            f"{str(path)!r} has {len(members)} files of {sum(one.file_size for one in members)} bytes; the limits are "
            f"{MAX_FILES} files and {MAX_TOTAL_BYTES} bytes. Pass an archive of one series.",
        )
    if any(one.flag_bits & 1 for one in members):
        raise VolumeError("unreadable", f"{str(path)!r} is encrypted. Unpack it, and pass the folder.")
    if any(one.compress_type not in BOUNDED for one in members):
        raise VolumeError("unreadable", f"{str(path)!r} is packed by another method than deflate. Make it again.")
    return [SourceFile(f"{path}: {one.filename}", _member(path, one)) for one in members]


def _member(path: Path, member: zipfile.ZipInfo) -> Callable[[], bytes]:
    def read() -> bytes:
        where = f"{f'{path}: {member.filename}'!r}"
        try:
            with zipfile.ZipFile(path) as archive, archive.open(member) as file:
                data = file.read(min(member.file_size, MAX_FILE_BYTES) + 1)
        except Exception as error:  # noqa: BLE001  zipfile raises many kinds for damaged archives
            raise ImageError(f"{where} cannot be read ({type(error).__name__}): the archive is damaged.") from None
        if len(data) > min(member.file_size, MAX_FILE_BYTES):
            raise ImageError(f"{where} has more than {min(member.file_size, MAX_FILE_BYTES)} bytes, the most allowed.")
        return data

    return read
