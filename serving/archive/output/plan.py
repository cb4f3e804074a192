"""`Plan`: what an output directory will contain. Written once, before any part; every later run continues it.

    OUT/manifest.json            what is scored with what: digests, options, shards; no names
    OUT/parts/part-NNNNNNNN.parquet   one file per shard
    OUT/log.jsonl                times, workers and losses
    OUT/private/listing.parquet  the names of the inputs; one row group per shard
    OUT/private/key              key of the digests of names, unless --key gave one

Everything outside `private` is free of names and patient ids.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from stageproof.runtime.errors import InputError
from stageproof.runtime.serialization.digests import UNSEALED, is_sealed, seal
from stageproof.runtime.system.regular_files import read_text
from stageproof.serving.archive.inputs.entry import Entry
from stageproof.serving.archive.output.files import not_written, write_whole
from stageproof.serving.archive.output.listing_file import ListingFile

FORMAT = 1
FILE = "manifest.json"
_LARGEST = 1 << 20


@dataclass(frozen=True)
class Plan:
    """The manifest of an output directory."""

    out: Path
    data: Mapping[str, Any]
    """Content of the manifest."""

    @classmethod
    def read(cls, out: Path) -> Plan:
        """The plan of `out`. Raises InputError if there is none, or it was changed or written by a newer version."""
        path = out / FILE
        try:
            text = read_text(path, _LARGEST)
            data = json.loads(text)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "it is not JSON"
            raise InputError(
                f"{path} cannot be read: {reason}. Give a folder that score --out wrote; start another one otherwise."
            ) from error
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            form = data.get("format") if isinstance(data, dict) else None
            raise InputError(
                f"{path} has format {form!r}, this version reads {FORMAT}. Start another --out, or upgrade."
            )
        if not is_sealed(text, data.get("sha256")):
            raise InputError(f"{path} was changed after it was written. Restore it, or start another --out.")
        return cls(out, data)

    @classmethod
    def write(cls, out: Path, data: Mapping[str, Any]) -> Plan:
        """Write the manifest, the last step of planning. Raises ArchiveError."""
        text = json.dumps({"format": FORMAT, **data, "sha256": UNSEALED}, indent=1) + "\n"
        write_whole(out / FILE, seal(text).encode())
        return cls.read(out)

    @property
    def shards(self) -> range:
        """Numbers of the shards, from 0."""
        return range(self.data["listing"]["shards"])

    @property
    def inputs(self) -> int:
        """Number of inputs."""
        return int(self.data["listing"]["inputs"])

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in clinical order."""
        return tuple(self.data["bundle"]["classes"])

    @property
    def guard_scores(self) -> tuple[str, ...]:
        """Names of the guard's scores; empty without a guard."""
        return tuple(self.data["bundle"]["guard"]["thresholds"]) if self.data["bundle"]["guard"] else ()

    @property
    def parts(self) -> Path:
        """Folder of the parts."""
        return self.out / "parts"

    def part(self, shard: int) -> Path:
        """File of a shard."""
        return self.parts / f"part-{shard:08d}.parquet"

    @cached_property
    def listing(self) -> ListingFile:
        """The names of the inputs. Raises InputError if the file is not the one of this manifest."""
        return ListingFile.open(listing_path(self.out), self.data["listing"]["file_sha256"])

    def entries(self, shard: int) -> list[Entry]:
        """The inputs of a shard, in order."""
        return self.listing.entries(shard)

    def identity(self, shard: int) -> dict[str, str]:
        """What a part of this shard states about itself: the part of another bundle, listing, or shard differs."""
        bundle, listing = self.data["bundle"], self.data["listing"]
        return {
            "format": str(FORMAT),
            "bundle": bundle["digest"],
            "weights": bundle["weights"],
            "backend": bundle["backend"],
            "precision": bundle["precision"],
            "guard": "none" if bundle["guard"] is None else "used",
            "software": json.dumps(self.data["software"], sort_keys=True),
            "device": self.data["options"]["device"],
            "threads": str(self.data["options"]["threads"]),
            "listing": listing["digest"],
            "key": self.data["key"],
            "shard": str(shard),
        }


def private(out: Path) -> Path:
    """Folder of what must not be shared with the rows."""
    return out / "private"


def listing_path(out: Path) -> Path:
    """File of the listing."""
    return private(out) / "listing.parquet"


def make_folders(out: Path) -> None:
    """Create the folders of an output; `private` is accessible by its owner only. Raises ArchiveError."""
    try:
        for folder in (out, out / "parts", private(out)):
            folder.mkdir(parents=folder == out, exist_ok=True)
        private(out).chmod(0o700)
    except OSError as error:
        raise not_written(out, error) from error
