"""Pseudonyms (keyed digests) for image names in files that are shared. Key and names stay in one local file.

A digest without a key could be reversed by guessing, since file names are few and often contain patient names.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

PHANTOM = "phantom("
"""Start of the description of synthetic slices, which show no real patient."""
ABSOLUTE_PATH = re.compile(r"(?<![\w.<])/(?:[^\s/:'\"<>|,;()\[\]]+/)+[^\s/:'\"<>|,;()\[\]]*")
"""An absolute path in a text, as far as it has no spaces."""
_DEFAULT_RUN = re.compile(r"\d{8}-\d{6}-[a-z0-9-]+")
_OWN_SUFFIX = re.compile(r"(, with \d+ of people who are not in it)?(, ten sizes, grey and colour)?\Z")


class Pseudonyms:
    """Keyed digests of names with one key."""

    def __init__(self, key: bytes | None = None) -> None:
        """key: None generates a random key."""
        self.key = os.urandom(32) if key is None else key

    def of(self, name: str) -> str:
        """The pseudonym of a name: ``image-`` and the first 16 hexadecimal digits of its HMAC-SHA256."""
        content = name.encode("utf-8", "surrogateescape")
        return f"image-{hmac.new(self.key, content, hashlib.sha256).hexdigest()[:16]}"

    def write(self, path: Path, names: Iterable[str]) -> None:
        """Write the key and the name of each pseudonym to a file that only this user can read. Raises OSError."""
        content = {"key": self.key.hex(), "names": {self.of(name): name for name in names}}
        write_private(path, (json.dumps(content, indent=1) + "\n").encode())


def with_texts(value: Any, replaced: Callable[[str], str]) -> Any:
    """A copy of a JSON-like value with `replaced` applied to every string except keys."""
    if isinstance(value, str):
        return replaced(value)
    if isinstance(value, dict):
        return {key: with_texts(one, replaced) for key, one in value.items()}
    return [with_texts(one, replaced) for one in value] if isinstance(value, (list, tuple)) else value


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only this user can read (mode 0600), replacing an existing one. Raises OSError."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def public_source(source: str) -> str:
    """The name of a data set in shared files: the parameters of phantoms, ``user data`` for all others.

    source: `train.data.samples.Samples.source`.
    """
    suffix = _OWN_SUFFIX.search(source)
    return source if source.startswith(PHANTOM) else f"user data{suffix[0] if suffix else ''}"


def public_run(name: str, digest: str) -> str:
    """The name of a run in shared files: its default name, or part of the SHA-256 of its weights if the user chose the
    name."""
    return name if _DEFAULT_RUN.fullmatch(name) else f"run-{digest[:12]}"
