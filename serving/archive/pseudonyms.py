"""Keyed digests of the names of inputs and patients: rows have these, only the private listing has the names.

A digest without a key could be reversed by trying likely names. The same name has the same digest in every output that
was made with the same key.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Callable
from pathlib import Path

from stageproof.runtime.errors import InputError
from stageproof.runtime.system.regular_files import read_regular
from stageproof.serving.archive.output.files import write_whole

DIGITS = 24
"""Hexadecimal digits of a digest: 96 bits. Two of a billion names collide with a probability of 6e-12."""
_BYTES = (32, 4096)


def read_key(path: Path) -> bytes:
    """The key in a file, without surrounding white space. Raises InputError if unreadable or of another length."""
    try:
        secret = read_regular(path, 2 * _BYTES[1]).strip()
    except OSError as error:
        raise InputError(
            f"the key {path} cannot be read: {error.strerror}. Give the file of 32 or more random bytes that this "
            "output, or the outputs to be joined with it, were made with."
        ) from error
    if not _BYTES[0] <= len(secret) <= _BYTES[1]:
        raise InputError(f"the key {path} has {len(secret)} bytes, expected {_BYTES[0]} to {_BYTES[1]} random ones.")
    return secret


def make_key(path: Path) -> bytes:
    """A new random key in a new file that only its owner can read, whole or not at all. Raises ArchiveError."""
    secret = secrets.token_hex(32).encode()
    write_whole(path, secret + b"\n", mode=0o600)
    return secret


def keyed(secret: bytes, kind: str) -> Callable[[str | bytes | None], str | None]:
    """A function from a name to its digest, HMAC-SHA256 (RFC 2104) shortened to `DIGITS`; None and empty names have
    none. kind: separates digests of patients from those of inputs with the same name."""
    start = hmac.new(secret, kind.encode() + b"\0", hashlib.sha256)

    def digest(name: str | bytes | None) -> str | None:
        if not name:
            return None
        one = start.copy()
        one.update(name if isinstance(name, bytes) else os.fsencode(name))
        return one.hexdigest()[:DIGITS]

    return digest


def fingerprint(secret: bytes) -> str:
    """Identifies the key without revealing it."""
    return hmac.new(secret, b"stageproof archive key", hashlib.sha256).hexdigest()[:16]
