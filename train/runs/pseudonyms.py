"""Names of images in files that others may read: keyed digests. The key and the names stay in one local file.

Without the key a digest says nothing of a name, not even to somebody who can guess names: file names are few and often
those of patients.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path

PHANTOM = "phantom("
"""How the description of synthetic slices begins; they are nobody's."""
_DEFAULT_RUN = re.compile(r"\d{8}-\d{6}-[a-z0-9-]+")
_OWN_SUFFIX = re.compile(r"(, with \d+ of people who are not in it)?(, ten sizes, grey and colour)?\Z")


class Pseudonyms:
    """Keyed digests of names, by one key."""

    def __init__(self, key: bytes | None = None) -> None:
        """key: None makes a new random one."""
        self.key = os.urandom(32) if key is None else key

    def of(self, name: str) -> str:
        """``image-`` and 16 hexadecimal digits: HMAC-SHA256 of the name."""
        content = name.encode("utf-8", "surrogateescape")
        return f"image-{hmac.new(self.key, content, hashlib.sha256).hexdigest()[:16]}"

    def write(self, path: Path, names: Iterable[str]) -> None:
        """Write the key and which name each digest stands for, readable for this user alone. OSError passes."""
        content = {"key": self.key.hex(), "names": {self.of(name): name for name in names}}
        write_private(path, (json.dumps(content, indent=1) + "\n").encode())


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only this user may read (mode 0600), in place of another. OSError passes to the caller."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def public_source(source: str) -> str:
    """What a data set is called in files that leave the machine: phantoms as they were made, others not by name.

    source: `train.data.samples.Samples.source`.
    """
    suffix = _OWN_SUFFIX.search(source)
    return source if source.startswith(PHANTOM) else f"user data{suffix[0] if suffix else ''}"


def public_run(name: str, digest: str) -> str:
    """What a run is called there: by its own default name, or by the SHA-256 of its weights where the user named it."""
    return name if _DEFAULT_RUN.fullmatch(name) else f"run-{digest[:12]}"
