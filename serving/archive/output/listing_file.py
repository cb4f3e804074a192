"""The listing of an archive: one parquet file with a row group per shard, written in a stream, read shard by shard."""

from __future__ import annotations

import array
import hashlib
import hmac
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stageproof.runtime.errors import InputError
from stageproof.runtime.serialization.digests import sha256_file
from stageproof.runtime.text.escapes import line
from stageproof.serving.archive.inputs.entry import Entry, is_url, local
from stageproof.serving.archive.output.files import TEMPORARY, not_written, sync_folder

_SCHEMA = pa.schema(
    [
        pa.field("input", pa.int64(), nullable=False),
        pa.field("name", pa.string(), nullable=False),  # for people: characters that no text may have are escaped
        pa.field("path", pa.binary(), nullable=False),
        pa.field("member", pa.binary()),
        pa.field("offset", pa.int64()),
        pa.field("size", pa.int64()),
        pa.field("modified_ns", pa.int64()),
        pa.field("patient", pa.string()),
    ]
)


@dataclass(frozen=True)
class Written:
    """What a listing that was written contains."""

    digest: str
    """HMAC-SHA256 with the key, over names, patients and the limits of the shards."""
    inputs: int
    shards: int
    bytes: int
    """Of all inputs whose size is known."""


def write(
    path: Path, entries: Iterable[Entry], *, secret: bytes, shard_images: int, shard_bytes: int, about: Any
) -> Written:
    """Write the listing whole or not at all.

    A shard ends after `shard_images` inputs, or before the input with which it would exceed `shard_bytes`.
    about: `folder`, the absolute working folder, and what else describes the inputs; see `ListingFile.about`.
    Memory: one shard, and 8 bytes per input to find inputs that are listed twice.
    Raises InputError for an input that is listed twice, ArchiveError if the file cannot be written.
    """
    temporary = path.with_name(f"{TEMPORARY}{path.name}")
    digest = hmac.new(secret, b"stageproof listing", hashlib.sha256)
    inputs = shards = size = 0
    hashes = array.array("Q")
    try:
        with pq.ParquetWriter(temporary, _SCHEMA, compression="zstd") as file:
            for shard in _shards(entries, shard_images, shard_bytes):
                file.write_table(_table(shard, inputs))
                digest.update(f"shard {len(shard)}\n".encode())
                for one in shard:
                    digest.update(json.dumps([one.path, one.member, one.patient]).encode() + b"\n")
                    hashes.append(_hash(one, about["folder"]))
                    size += one.size or 0
                inputs, shards = inputs + len(shard), shards + 1
            file.add_key_value_metadata({"stageproof": json.dumps(about)})
        _assert_distinct(temporary, hashes, about["folder"])
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise not_written(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)
    return Written(digest.hexdigest(), inputs, shards, size)


@dataclass(frozen=True)
class ListingFile:
    """A listing that `write` wrote, opened for reading."""

    file: pq.ParquetFile

    @classmethod
    def open(cls, path: Path, sha256: str) -> ListingFile:
        """Raises InputError if the file is missing or was changed. sha256: of the file, from the manifest."""
        try:
            found = sha256_file(path)
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}. Restore it, or start another --out.") from error
        if found != sha256:
            raise InputError(f"{path} was changed after it was written. Restore it, or start another --out.")
        return cls(pq.ParquetFile(path))

    @property
    def about(self) -> dict[str, Any]:
        """``folder``: the working folder that relative names belong to; ``inputs``: the value of --in."""
        about: dict[str, Any] = json.loads(self.file.metadata.metadata[b"stageproof"])
        return about

    def first(self, shard: int) -> int:
        """Number of the first input of a shard."""
        return int(self.file.read_row_group(shard, columns=["input"]).column(0)[0].as_py())

    def count(self, shard: int) -> int:
        """Number of inputs of a shard."""
        return int(self.file.metadata.row_group(shard).num_rows)

    def entries(self, shard: int) -> list[Entry]:
        """The inputs of a shard, in order."""
        return _entries(self.file.read_row_group(shard))


def _entries(table: pa.Table) -> list[Entry]:
    columns = [
        table.column(name).to_pylist() for name in ("path", "member", "offset", "size", "modified_ns", "patient")
    ]
    return [
        Entry(os.fsdecode(path), None if member is None else os.fsdecode(member), *rest)
        for path, member, *rest in zip(*columns, strict=True)
    ]


def _shards(entries: Iterable[Entry], images: int, most: int) -> Iterator[list[Entry]]:
    shard: list[Entry] = []
    size = 0
    for entry in entries:
        if shard and (len(shard) == images or size + (entry.size or 0) > most):
            yield shard
            shard, size = [], 0
        shard.append(entry)
        size += entry.size or 0
    if shard:
        yield shard


def _table(shard: list[Entry], first: int) -> pa.Table:
    members = [None if one.member is None else os.fsencode(one.member) for one in shard]
    columns = [
        range(first, first + len(shard)),
        [line(one.name) for one in shard],
        [os.fsencode(one.path) for one in shard],
        members,
        [one.offset for one in shard],
        [one.size for one in shard],
        [one.modified for one in shard],
        [None if one.patient is None else line(one.patient) for one in shard],
    ]
    arrays = [pa.array(values, field.type) for values, field in zip(columns, _SCHEMA, strict=True)]
    return pa.Table.from_arrays(arrays, schema=_SCHEMA)


def _hash(entry: Entry, folder: str) -> int:
    """64 bits of the digest of the name; two spellings of one path are the same, and so are two members of one name,
    which would have the same ``input_id``."""
    path = entry.path if is_url(entry.path) else os.path.normpath(local(entry.path, folder))
    key = os.fsencode(path) + b"\0" + os.fsencode(entry.member or "")
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little")


def _assert_distinct(listing: Path, hashes: array.array[int], folder: str) -> None:
    found = np.sort(np.frombuffer(hashes, np.uint64)) if hashes else np.empty(0, np.uint64)
    twice = set(found[1:][found[1:] == found[:-1]].tolist())
    if not twice:
        return
    seen: set[str] = set()
    with pq.ParquetFile(listing) as file:
        for group in range(file.num_row_groups):
            for one in _entries(file.read_row_group(group)):
                if _hash(one, folder) in twice:
                    path = one.path if is_url(one.path) else os.path.normpath(local(one.path, folder))
                    key = f"{path}\0{one.member or ''}"
                    if key in seen:
                        more = f", as are {len(twice) - 1} others" if len(twice) > 1 else ""
                        raise InputError(
                            f"{line(one.name)} is listed more than once{more}; expected every input once, since it has "
                            "one row. Remove what repeats it: a path, a row of a list, or a member of a container."
                        )
                    seen.add(key)
