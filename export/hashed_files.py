"""Files that are what was meant to be written: their SHA-256 is taken before they touch the disk."""

from __future__ import annotations

import hashlib
from pathlib import Path

from stageproof.runtime.errors import ExportError
from stageproof.runtime.serialization.digests import sha256_file


def write(path: Path, content: bytes) -> str:
    """Write `content`; returns its SHA-256, hexadecimal, as it was in memory. OSError passes to the caller."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)  # its content may be shared with another bundle's file
    path.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def assert_written(path: Path, digest: str) -> None:
    """Raise ExportError unless the file has the SHA-256 that its content had in memory."""
    found = sha256_file(path)
    if found != digest:
        raise ExportError(
            f"{path.name} has SHA-256 {found[:12]}… on the disk, {digest[:12]}… was written: it changed since. Check "
            "the disk, and export again."
        )
