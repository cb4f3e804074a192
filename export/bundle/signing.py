"""Signs a bundle with the user's private key; with the public key anyone can verify its origin and integrity.

The manifest's hashes protect integrity only; the signature also proves who exported it. The format is OpenSSF model
signing (sigstore's `model-signing`), whose own command verifies it without this library.
"""

from __future__ import annotations

import shlex
from importlib.util import find_spec
from pathlib import Path

from stageproof.runtime.artifacts.entries import SIGNATURE
from stageproof.runtime.errors import DependencyError, ExportError, InputError
from stageproof.runtime.system.regular_files import read_regular


def assert_can_sign(key: Path) -> None:
    """Raise DependencyError if the package is missing, InputError for an unusable key; called before any work."""
    if not key.is_file():
        raise InputError(
            f"--sign {key} is not a file. Make a key: openssl ecparam -name prime256v1 -genkey -noout -out "
            f"{shlex.quote(str(key))}"
        )
    if not find_spec("model_signing"):
        raise DependencyError("--sign needs the package model-signing: pip install 'stageproof[sign]'.")
    if problem := _why_not_a_key(key):
        raise InputError(
            f"--sign {key} cannot sign: {problem}. Give an unencrypted private elliptic-curve key in PEM. Nothing was "
            "built."
        )


def _why_not_a_key(key: Path) -> str:
    """Why `sign` cannot use the file as a key; "" if it can, or if only signing itself can show it."""
    try:
        content = read_regular(key, 1 << 20)
    except OSError as error:
        return f"it cannot be read ({error.strerror})"
    if not find_spec("cryptography"):
        return ""
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        found = load_pem_private_key(content, password=None)
    except TypeError:  # raised for a key with a password
        return "it is encrypted"
    except Exception as error:  # noqa: BLE001  (ValueError, UnsupportedAlgorithm, errors of OpenSSL)
        return f"it is not a private key in PEM ({type(error).__name__})"
    return "" if isinstance(found, EllipticCurvePrivateKey) else f"it is a {type(found).__name__}"


def sign(folder: Path, key: Path) -> None:
    """Write `SIGNATURE`, which covers all other files, into the bundle `folder`. Raises ExportError on failure."""
    target = folder / SIGNATURE
    try:
        from model_signing import hashing, signing

        files = hashing.Config().set_ignored_paths(paths=[target], ignore_git_paths=False)
        signer = signing.Config().use_elliptic_key_signer(private_key=key).set_hashing_config(files)
        signer.sign(folder, target)
    except Exception as error:  # of cryptography, sigstore and the file system
        raise ExportError(
            f"the bundle cannot be signed with {key}: {error}. Give an unencrypted elliptic-curve key in PEM. Nothing "
            "was written."
        ) from error
