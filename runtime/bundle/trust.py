"""Whose bundle is it? What the caller vouches for, checked against the manifest's bytes before anything is parsed."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from stageproof.runtime.artifacts.entries import FILE, SIGNATURE
from stageproof.runtime.artifacts.files import read_once
from stageproof.runtime.errors import InputError, TrustError
from stageproof.runtime.text.hints import command

_DIGEST = re.compile("[0-9a-f]{64}(-[0-9a-f]{64})?")


@dataclass(frozen=True)
class Trust:
    """What the caller of `Predictor` says of the bundle's maker."""

    code: bool = False
    """Artifacts that carry code may be loaded."""
    key: Path | None = None
    """Public key (PEM) whose owner must have signed the bundle."""
    digest: str | None = None
    """SHA-256 of the manifest, or of the lone artifact, that is to be loaded."""

    @classmethod
    def of(cls, code: bool, key: str | os.PathLike[str] | None, digest: str | None) -> Trust:
        """Checked. Raises InputError for a digest that is none, and for a key that is not there."""
        if not isinstance(code, bool):
            raise InputError(f"trust_code is {code!r}, expected True or False.")
        pinned = None if digest is None else str(digest).strip().lower().removeprefix("sha256:")
        if pinned is not None and not _DIGEST.fullmatch(pinned):
            raise InputError(
                f"trusted_digest is {str(digest)[:80]!r}, expected the 64 hexadecimal digits of Predictor.digest, the "
                f"SHA-256 of {FILE} (sha256sum)."
            )
        if key is not None and not Path(key).is_file():
            raise InputError(f"trusted_key is {key}, which is not a file. Give the public key (PEM) of whoever signed.")
        return cls(code, None if key is None else Path(key), pinned)

    def assert_bundle(self, bundle: Path, manifest: bytes) -> str:
        """The SHA-256 of the manifest's bytes, which are those that were named. Raises TrustError unless they are."""
        found = hashlib.sha256(manifest).hexdigest()
        self._assert_digest(bundle, found)
        if self.key is not None:
            from stageproof.runtime.bundle.signed import signed_digest  # it needs the package cryptography

            try:
                signature = read_once(bundle / SIGNATURE, _LARGEST_SIGNATURE, "signature")
            except FileNotFoundError as error:
                raise TrustError(
                    f"{bundle} is not signed: it has no {SIGNATURE}. Nothing was loaded. Get the bundle that the owner "
                    f"of {self.key} signed, or sign it: {command('export', '--sign', 'KEY')}. "
                    "trusted_key=None asks for no signature."
                ) from error
            if signed_digest(signature, bundle / SIGNATURE, self.key, FILE) != found:
                raise TrustError(
                    f"{bundle / SIGNATURE} is signed by the owner of {self.key}, for another {FILE}: this one was "
                    "changed or exchanged since. Nothing was loaded. Copy the bundle again, or sign it again."
                )
        return found

    def assert_lone(self, path: Path, digest: str) -> None:
        """Raise TrustError unless the lone artifact of that digest is the one that was named."""
        if self.key is not None:
            raise TrustError(
                f"{path} is a lone artifact, which no signature covers. Give the signed bundle it is from."
            )
        self._assert_digest(path, digest)

    def _assert_digest(self, path: Path, found: str) -> None:
        if self.digest not in (None, found):
            raise TrustError(
                f"{path} has SHA-256 {found[:12]}…, and {str(self.digest)[:12]}… was expected (trusted_digest): it is "
                "another one, or was replaced in between. Nothing was loaded. Get the one that was meant; if a new one "
                "is meant, name its digest."
            )


NOBODY = Trust()
"""Data only, of whoever made the bundle."""

_LARGEST_SIGNATURE = 1 << 20
"""Bytes of a signature, which names every file of the bundle."""
