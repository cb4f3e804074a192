"""Writes files whose SHA-256 is computed in memory, and checks written files against it, to find disk errors."""

from __future__ import annotations

import hashlib
from pathlib import Path

from stageproof.runtime.errors import ExportError
from stageproof.runtime.serialization.digests import sha256_file


def write(path: Path, content: bytes) -> str:
    """Hexadecimal SHA-256 of `content`, computed in memory; writes `content` to `path`. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)  # it may be a hard link to a file of another bundle
    path.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def assert_written(path: Path, digest: str) -> None:
    """Raise ExportError unless the file's SHA-256 is `digest`."""
    found = sha256_file(path)
    if found != digest:
        raise ExportError(
            f"{path.name} has SHA-256 {found[:12]}… on disk, expected {digest[:12]}…: it changed after it was written. "
            "Check the disk, and export again."
        )
