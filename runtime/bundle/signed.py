"""Verification of a bundle's signature, `model.sig`.

The format is OpenSSF model signing 1.0, as `python -m export --sign` writes it: a Sigstore bundle (JSON) with a DSSE
envelope (github.com/secure-systems-lab/dsse) around an in-toto statement, whose predicate lists the digest of every
file. Only the manifest's digest is used, because the manifest lists the digests of all other files.
"""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from typing import Any

from stageproof.runtime.artifacts.files import read_once
from stageproof.runtime.errors import BundleError, DependencyError, InputError, TrustError
from stageproof.runtime.serialization.json_fields import field, objects, parse, text

PAYLOAD = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://model_signing/signature/v1.0"

_LARGEST_KEY = 16 << 10


def signed_digest(signature: bytes, where: Path, key: Path, file: str) -> str:
    """The signed SHA-256, hexadecimal, of `file`; the signature was verified with `key`.

    signature: content of the signature file. where: its path, for messages. key: path of a public key in PEM format.

    Raises TrustError if the signature is malformed, made with another key, or does not list `file`; InputError for an
    invalid key; DependencyError without the package cryptography.
    """
    verify = _verifier(key)
    try:
        envelope = field(parse(signature.decode("utf-8"), str(where)), "dsseEnvelope", dict, str(where))
        kind = text(envelope, "payloadType", str(where))
        payload = base64.b64decode(text(envelope, "payload", str(where)), validate=True)
        given = [
            base64.b64decode(text(one, "sig", str(where)), validate=True)
            for one in objects(envelope, "signatures", str(where))[:8]
        ]
    except (BundleError, UnicodeDecodeError, binascii.Error, ValueError) as error:
        raise TrustError(
            f"{where} is not a model-signing signature ({error}). Nothing was loaded. Copy the bundle again, or sign "
            "it again."
        ) from error
    # DSSE, protocol.md: the signed bytes include the payload type.
    signed = b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload)
    if kind != PAYLOAD or not any(verify(one, signed) for one in given):
        raise TrustError(
            f"{where} was not signed by the owner of {key}. Nothing was loaded. Give the public key of the bundle's "
            "author, obtained from another source than the bundle; or get the bundle that this key signed."
        )
    return _digest(payload, where, file)


def _digest(payload: bytes, where: Path, file: str) -> str:
    """The digest of `file` in the signed statement."""
    try:
        statement = parse(payload.decode("utf-8"), str(where))
        if statement.get("_type") != STATEMENT or statement.get("predicateType") != PREDICATE:
            raise BundleError(f"its predicate type is {statement.get('predicateType')!r}, expected {PREDICATE!r}")
        resources = objects(field(statement, "predicate", dict, str(where)), "resources", str(where))
        found = [entry for entry in resources if entry.get("name") == file]
        if len(found) != 1 or found[0].get("algorithm") != "sha256":
            raise BundleError(f"it lists {len(found)} files called {file}, expected one, with a SHA-256")
        digest: str = field(found[0], "digest", str, str(where))
    except (BundleError, UnicodeDecodeError) as error:
        raise TrustError(
            f"{where} signs other content ({error}). Nothing was loaded. Copy the bundle again, or sign it again."
        ) from error
    return digest.lower()


def _verifier(key: Path) -> Any:
    """A function (signature, signed bytes) → whether the signature is valid for this key."""
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import load_pem_public_key
    except ImportError as error:
        raise DependencyError(
            "trusted_key needs the package cryptography: pip install 'stageproof[verify]'."
        ) from error
    try:
        loaded = load_pem_public_key(read_once(key, _LARGEST_KEY, "key", again="Give a public key in PEM."))
    except FileNotFoundError as error:
        raise InputError(f"trusted_key is {key}, which does not exist. Give the public key (PEM).") from error
    except Exception as error:  # BundleError, ValueError, UnsupportedAlgorithm, errors of OpenSSL
        raise InputError(f"trusted_key {key} is not a PEM public key ({error}). Nothing was loaded.") from error
    if not isinstance(loaded, ec.EllipticCurvePublicKey):
        raise InputError(f"trusted_key {key} is a {type(loaded).__name__}, expected an elliptic-curve key.")
    # The choice of model-signing: SHA-2 of the curve's size.
    by_size: dict[int, Any] = {256: hashes.SHA256, 384: hashes.SHA384, 521: hashes.SHA512}
    if loaded.curve.key_size not in by_size:
        raise InputError(f"trusted_key {key} uses the curve {loaded.curve.name}, expected P-256, P-384 or P-521.")
    algorithm = ec.ECDSA(by_size[loaded.curve.key_size]())

    def verify(signature: bytes, signed: bytes) -> bool:
        try:
            loaded.verify(signature, signed, algorithm)
        except InvalidSignature:
            return False
        return True

    return verify
