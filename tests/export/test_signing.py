"""Signed bundles, where `model-signing` is installed; without it, what to install."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.util import find_spec

import pytest

from stageproof.export.__main__ import main
from stageproof.export.bundle.signing import SIGNATURE, sign
from stageproof.runtime.bundle.verify import verified
from stageproof.runtime.errors import ExportError

NEEDS = "model-signing is not installed: stageproof[sign]"
installed = pytest.mark.skipif(not find_spec("model_signing"), reason=NEEDS)


@pytest.fixture
def keys(tmp_path):
    """A private key and its public one, PEM."""
    pytest.importorskip("cryptography")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    private, public = tmp_path / "key.pem", tmp_path / "key.pub"
    private.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    public.write_bytes(key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))
    return private, public


@pytest.fixture
def bundle(small_bundle, tmp_path):
    shutil.copytree(small_bundle, tmp_path / "bundle")
    return tmp_path / "bundle"


def verify(bundle, public) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "model_signing", "verify", "key", str(bundle)]
    command += ["--signature", str(bundle / SIGNATURE), "--public_key", str(public)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@installed
def test_a_signed_bundle_verifies_with_the_packages_own_command_until_it_changes(bundle, keys):
    private, public = keys
    sign(bundle, private)
    assert verified(bundle)
    done = verify(bundle, public)
    assert done.returncode == 0, done.stderr
    (bundle / "MODEL_CARD.md").unlink()
    (bundle / "MODEL_CARD.md").write_text("another card")
    assert verify(bundle, public).returncode != 0


@installed
def test_a_key_of_no_use_is_one_clear_line(bundle, tmp_path):
    (tmp_path / "key.pem").write_text("no key")
    with pytest.raises(ExportError, match=r"cannot be signed with .*key.pem: .* Nothing was written"):
        sign(bundle, tmp_path / "key.pem")
    assert not (bundle / SIGNATURE).exists()


def test_without_the_package_it_says_what_to_install(tiny_run, tmp_path, capsys, monkeypatch):
    from stageproof.export.bundle import signing

    monkeypatch.setattr(signing, "find_spec", lambda name: None)
    (tmp_path / "key.pem").write_text("a key")
    assert main([str(tiny_run), "--sign", str(tmp_path / "key.pem"), "--out", str(tmp_path / "bundle")]) == 2
    assert "--sign needs the package model-signing: pip install 'stageproof[sign]'" in capsys.readouterr().err
    assert not (tmp_path / "bundle").exists()


def test_a_missing_key_is_refused_before_any_work(tiny_run, tmp_path, capsys):
    assert main([str(tiny_run), "--sign", str(tmp_path / "none.pem"), "--out", str(tmp_path / "bundle")]) == 2
    assert "none.pem is not a file. Make a key: openssl ecparam" in capsys.readouterr().err
    assert not (tmp_path / "bundle").exists()
