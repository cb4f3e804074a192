"""SHA-256 of files, and of texts that contain their own digest."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from stageproof.runtime.system.regular_files import open_regular

DIGEST = re.compile("[0-9a-f]{64}")
UNSEALED = "0" * 64
"""Placeholder in a text for the digest that `seal` inserts."""

_BLOCK = 256 * 1024


def sha256_file(path: Path) -> str:
    """SHA-256 of a regular file's content, hexadecimal. Raises OSError, also for FIFOs and devices."""
    digest = hashlib.sha256()
    # One reused buffer: with a new block per read, each thread's malloc arena would retain memory.
    buffer = memoryview(bytearray(_BLOCK))
    with open_regular(path) as file:
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
    return digest.hexdigest()


def seal(text: str) -> str:
    """The text with its last `UNSEALED` replaced by the text's SHA-256."""
    before, after = text.rsplit(UNSEALED, 1)
    return before + hashlib.sha256(text.encode()).hexdigest() + after


def is_sealed(text: str, stated: object) -> bool:
    """Whether `stated`, a digest in the text, is the one that `seal` inserted."""
    if not isinstance(stated, str) or not DIGEST.fullmatch(stated) or stated not in text:
        return False
    before, after = text.rsplit(stated, 1)
    return hashlib.sha256((before + UNSEALED + after).encode()).hexdigest() == stated
