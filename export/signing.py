"""Sign a bundle with the user's own key: whoever has the public one can tell who exported it, and that nothing changed.

The manifest's hashes show that a bundle is whole; a signature shows whose it is. OpenSSF model signing (sigstore's
`model-signing`), whose own command verifies it without this library.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from runtime.errors import ExportError, InputError

SIGNATURE = "model.sig"


def assert_can_sign(key: Path) -> None:
    """Raise InputError where the package or the key is missing, before any work is done."""
    if not key.is_file():
        raise InputError(
            f"--sign {key} is not a file. Make a key: openssl ecparam -name prime256v1 -genkey -noout -out {key}"
        )
    if not find_spec("model_signing"):
        raise InputError("--sign needs the package model-signing: pip install 'neurostage[sign]'.")


def sign(folder: Path, key: Path) -> None:
    """Write `SIGNATURE`, which covers every other file, into the bundle `folder`. Raises ExportError for a bad key."""
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
