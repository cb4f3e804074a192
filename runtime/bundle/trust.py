"""`Trust`: the caller's requirements on a bundle (code, key, digest), checked before its manifest is parsed."""

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
    """Trust options of `Predictor`."""

    code: bool = False
    """Whether artifacts that contain code may be loaded."""
    key: Path | None = None
    """Public key (PEM) that must have signed the bundle; None requires no signature."""
    digest: str | None = None
    """Required SHA-256 of the manifest or of the lone artifact; None accepts any."""

    @classmethod
    def of(cls, code: bool, key: str | os.PathLike[str] | None, digest: str | None) -> Trust:
        """The validated options. Raises InputError for a malformed digest, and for a key file that does not exist."""
        if not isinstance(code, bool):
            raise InputError(f"trust_code is {code!r}, expected True or False.")
        pinned = None if digest is None else str(digest).strip().lower().removeprefix("sha256:")
        if pinned is not None and not _DIGEST.fullmatch(pinned):
            raise InputError(
                f"trusted_digest is {str(digest)[:80]!r}, expected the 64 hexadecimal digits of Predictor.digest, the "
                f"SHA-256 of {FILE} (sha256sum)."
            )
        if key is not None and not Path(key).is_file():
            raise InputError(f"trusted_key is {key}, which is not a file. Give the signer's public key (PEM).")
        return cls(code, None if key is None else Path(key), pinned)

    def assert_bundle(self, bundle: Path, manifest: bytes) -> str:
        """SHA-256 of the manifest's bytes. Raises TrustError unless digest and signature are as required."""
        found = hashlib.sha256(manifest).hexdigest()
        self._assert_digest(bundle, found)
        if self.key is not None:
            from stageproof.runtime.bundle.signed import signed_digest  # imports the optional package cryptography

            try:
                signature = read_once(bundle / SIGNATURE, _LARGEST_SIGNATURE, "signature")
            except FileNotFoundError as error:
                raise TrustError(
                    f"{bundle} is not signed: it has no {SIGNATURE}. Nothing was loaded. Get the bundle that the owner "
                    f"of {self.key} signed, or sign it: {command('export', '--sign', 'KEY')}. "
                    "trusted_key=None requires no signature."
                ) from error
            if signed_digest(signature, bundle / SIGNATURE, self.key, FILE) != found:
                raise TrustError(
                    f"{bundle / SIGNATURE} is signed by the owner of {self.key}, for another {FILE}: this one was "
                    "changed or replaced after signing. Nothing was loaded. Copy the bundle again, or sign it again."
                )
        return found

    def assert_lone(self, path: Path, digest: str) -> None:
        """Raise TrustError for a lone artifact of another digest than required, or if a signature is required."""
        if self.key is not None:
            raise TrustError(
                f"{path} is a lone artifact, which no signature covers. Give the signed bundle that contains it."
            )
        self._assert_digest(path, digest)

    def _assert_digest(self, path: Path, found: str) -> None:
        if self.digest not in (None, found):
            raise TrustError(
                f"{path} has SHA-256 {found[:12]}…, expected {str(self.digest)[:12]}… (trusted_digest): it is another "
                "bundle or artifact, or was replaced. Nothing was loaded. Get the expected one, or give the digest of "
                "the new one."
            )


DEFAULT_TRUST = Trust()
"""The default: load data but no code; any author."""

_LARGEST_SIGNATURE = 1 << 20
"""Limit on the bytes of a signature, which lists every file of the bundle."""
