"""Members of tar and zip files: listed in their order, and read at their position."""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import BinaryIO

from stageproof.runtime.errors import InputError
from stageproof.runtime.headers.limits import MAX_FILE_BYTES
from stageproof.runtime.headers.signatures import HEAD
from stageproof.runtime.images.debris import is_debris
from stageproof.runtime.images.folders import kind_of_other
from stageproof.runtime.system.zips import BOUNDED
from stageproof.serving.archive.inputs.entry import Entry, Skipped
from stageproof.serving.archive.inputs.folders import DEBRIS

SUFFIXES = (".tar", ".zip")
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")


def is_container(path: str) -> bool:
    """Whether the suffix is that of a tar or zip file. Raises InputError for a compressed tar file."""
    lower = path.lower()
    if lower.endswith(_COMPRESSED):
        raise InputError(
            f"{path} is a compressed tar file, whose members cannot be read one by one. Decompress it to .tar, or "
            "unpack it."
        )
    return lower.endswith(SUFFIXES)


def members(path: str, file: BinaryIO, modified: int | None, skipped: Skipped) -> Iterator[Entry]:
    """The images in the tar or zip file `file`. path: its name. Raises InputError if it cannot be read to its end."""
    listed = _zip_members if path.lower().endswith(".zip") else _tar_members
    try:
        yield from listed(path, file, modified, skipped)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, NotImplementedError, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be listed: {error}. Copy it again, or remove it from the inputs.") from error


def _tar_members(path: str, file: BinaryIO, modified: int | None, skipped: Skipped) -> Iterator[Entry]:
    with tarfile.open(fileobj=file, mode="r:") as archive:
        for one in archive:
            archive.members = []  # type: ignore[attr-defined]  # otherwise every header stays in memory
            if one.isdir():
                continue
            if not one.isreg() or one.sparse is not None:
                skipped.add("links and special files in tar files")
                continue
            entry = Entry(path, one.name, one.offset_data, one.size, modified)
            if _is_image(one.name, lambda entry=entry: read_tar(file, entry, HEAD), skipped):
                yield entry


def _zip_members(path: str, file: BinaryIO, modified: int | None, skipped: Skipped) -> Iterator[Entry]:
    with zipfile.ZipFile(file) as archive:
        for one in archive.infolist():
            if one.is_dir():
                continue

            def head(one: zipfile.ZipInfo = one) -> bytes:
                with archive.open(one) as content:
                    return content.read(HEAD)

            if one.flag_bits & 1:
                raise InputError(f"{path} has encrypted members, such as {one.filename!r}. Decrypt it.")
            if one.compress_type not in BOUNDED:
                raise InputError(f"{path} is packed by another method than deflate ({one.filename!r}). Make it again.")
            if _is_image(one.filename, head, skipped):
                yield Entry(path, one.filename, None, one.file_size, modified)


def read_tar(file: BinaryIO, entry: Entry, most: int = MAX_FILE_BYTES + 1) -> bytes:
    """Up to `most` bytes of a tar member. Raises OSError if the file ends before the member does."""
    assert entry.offset is not None
    assert entry.size is not None
    file.seek(entry.offset)
    wanted = min(most, entry.size)
    content = file.read(wanted)
    if len(content) < wanted:
        raise OSError("the tar file ends within this member")
    return content


def read_zip(archive: zipfile.ZipFile, entry: Entry) -> bytes:
    """A zip member, up to one byte more than the limit for files. Raises OSError, BadZipFile, KeyError."""
    assert entry.member is not None
    with archive.open(entry.member) as content:
        return content.read(MAX_FILE_BYTES + 1)


def _is_image(name: str, head: object, skipped: Skipped) -> bool:
    if any(is_debris(part) for part in PurePosixPath(name).parts if part not in (".", "..")):
        skipped.add(DEBRIS)
        return False
    other = kind_of_other(name, head)  # type: ignore[arg-type]
    if other is not None:
        skipped.add(other)
    return other is None
