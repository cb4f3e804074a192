"""SHA-256 of files, and texts that state their own."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from stageproof.runtime.system.regular_files import open_regular

DIGEST = re.compile("[0-9a-f]{64}")
UNSEALED = "0" * 64
"""Stands in a text for the digest that `seal` puts there."""

_BLOCK = 256 * 1024


def sha256_file(path: Path) -> str:
    """SHA-256 of a regular file's content, hexadecimal. Raises OSError, also for a FIFO or a device."""
    digest = hashlib.sha256()
    # One buffer, small enough to go back to the system: blocks read by several threads stay in each one's arena.
    buffer = memoryview(bytearray(_BLOCK))
    with open_regular(path) as file:
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
    return digest.hexdigest()


def seal(text: str) -> str:
    """The text with its own SHA-256 in place of the last `UNSEALED` in it."""
    before, after = text.rsplit(UNSEALED, 1)
    return before + hashlib.sha256(text.encode()).hexdigest() + after


def is_sealed(text: str, stated: object) -> bool:
    """Whether `stated`, a digest that stands in the text, is the text's own."""
    if not isinstance(stated, str) or not DIGEST.fullmatch(stated) or stated not in text:
        return False
    before, after = text.rsplit(stated, 1)
    return hashlib.sha256((before + UNSEALED + after).encode()).hexdigest() == stated
