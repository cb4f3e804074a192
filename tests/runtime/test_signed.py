"""A bundle that its key's owner signed, or whose digest was named, and no other.

`tests/data/signed` holds what model-signing 1.1.1 wrote for `tests/data/bundle-0.1`, and the public key; the private
one was thrown away.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stageproof.runtime import BundleError, DependencyError, InputError, Predictor, TrustError, backends
from stageproof.runtime.__main__ import main
from stageproof.runtime.bundle.signed import PAYLOAD, PREDICATE, STATEMENT
from tests.runtime.hostile import OLD, copied, exchanged, rewritten

SIGNED = OLD.parent / "signed"
ENGINE = next(name for name in ("onnx", "openvino", "torchscript") if name in backends.available())
DIGEST = hashlib.sha256((OLD / "manifest.json").read_bytes()).hexdigest()


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    copied(tmp_path / "bundle")
    shutil.copy(SIGNED / "model.sig", tmp_path / "bundle" / "model.sig")
    return tmp_path / "bundle"


@pytest.fixture
def new_key(tmp_path: Path) -> Callable[[str], tuple[Any, Path]]:
    """Function: curve → a private key, and the file of its public one."""
    pytest.importorskip("cryptography", reason="the extra verify")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    def make(curve: str = "SECP256R1") -> tuple[Any, Path]:
        key = ec.generate_private_key(getattr(ec, curve)())
        path = tmp_path / f"{curve}-{os.urandom(4).hex()}.pub"
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        path.write_bytes(key.public_key().public_bytes(serialization.Encoding.PEM, form))
        return key, path

    return make


def statement(**changed: Any) -> dict[str, Any]:
    resources = [{"name": "manifest.json", "algorithm": "sha256", "digest": DIGEST}]
    return {"_type": STATEMENT, "predicateType": PREDICATE, "predicate": {"resources": resources}, **changed}


def signature(key: Any, payload: bytes, kind: str = PAYLOAD) -> str:
    """As model-signing writes it."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    algorithm = {256: hashes.SHA256, 384: hashes.SHA384, 521: hashes.SHA512}[key.curve.key_size]()
    signed = b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload)
    sig = base64.b64encode(key.sign(signed, ec.ECDSA(algorithm))).decode()
    envelope = {"payloadType": kind, "payload": base64.b64encode(payload).decode(), "signatures": [{"sig": sig}]}
    return json.dumps({"dsseEnvelope": envelope})


def test_what_model_signing_signed_is_loaded(bundle: Path) -> None:
    pytest.importorskip("cryptography", reason="the extra verify")
    predictor = Predictor(bundle, backend=ENGINE, trusted_key=SIGNED / "key.pub", trust_code=True)
    assert predictor.digest == DIGEST
    assert pickle.loads(pickle.dumps(predictor))._options["trusted_key"] == str(SIGNED / "key.pub")


@pytest.mark.parametrize("curve", ["SECP256R1", "SECP384R1", "SECP521R1"])
def test_every_curve_that_model_signing_takes(bundle: Path, new_key: Callable, curve: str) -> None:
    key, public = new_key(curve)
    (bundle / "model.sig").write_text(signature(key, json.dumps(statement()).encode()), encoding="utf-8")
    assert Predictor(bundle, backend=ENGINE, trusted_key=public, trust_code=True).digest == DIGEST


def test_the_signature_stripped_or_of_another_key(bundle: Path, new_key: Callable) -> None:
    key, public = new_key()
    with pytest.raises(TrustError, match=r"model\.sig was not signed by the owner of .*Give the public key"):
        Predictor(bundle, trusted_key=public)
    (bundle / "model.sig").write_text(signature(new_key()[0], json.dumps(statement()).encode()), encoding="utf-8")
    with pytest.raises(TrustError, match="was not signed by the owner"):
        Predictor(bundle, trusted_key=public)
    (bundle / "model.sig").unlink()
    with pytest.raises(TrustError, match=r"is not signed: it has no model\.sig\. Nothing was loaded.*--sign KEY"):
        Predictor(bundle, trusted_key=public)
    assert Predictor(bundle, backend=ENGINE, trust_code=True).digest == DIGEST, "which nobody asked for"
    del key


def test_the_signature_of_another_manifest(bundle: Path) -> None:
    """Everything computed again, as whoever has no key can."""
    pytest.importorskip("cryptography", reason="the extra verify")
    rewritten(bundle, lambda data: data["provenance"].update(more="x"))
    with pytest.raises(TrustError, match=r"signed by the owner of .*for another manifest\.json"):
        Predictor(bundle, trusted_key=SIGNED / "key.pub")
    assert Predictor(bundle, backend=ENGINE, trust_code=True).model


def test_another_file_under_the_signed_manifest(bundle: Path) -> None:
    pytest.importorskip("cryptography", reason="the extra verify")
    signed = (bundle / "manifest.json").read_bytes()
    exchanged(bundle, "guard.npz", (bundle / "guard.npz").read_bytes() + b"x")
    (bundle / "manifest.json").write_bytes(signed)
    with pytest.raises(BundleError, match=r"guard\.npz has SHA-256"):
        Predictor(bundle, trusted_key=SIGNED / "key.pub")


def two(first: str, second: str) -> dict[str, Any]:
    resources = [{"name": "manifest.json", "algorithm": "sha256", "digest": one} for one in (first, second)]
    return statement(predicate={"resources": resources})


OTHER: dict[str, Any] = {
    "another type": statement(_type="https://in-toto.io/Statement/v0.1"),
    "another predicate": statement(predicateType="https://slsa.dev/provenance/v1"),
    "no files": statement(predicate={"resources": []}),
    "no predicate": {"_type": STATEMENT, "predicateType": PREDICATE},
    "the manifest twice": two("0" * 64, DIGEST),
    "another hash": statement(
        predicate={"resources": [{"name": "manifest.json", "algorithm": "blake2b", "digest": DIGEST}]}
    ),
    "another file": statement(
        predicate={"resources": [{"name": "x/manifest.json", "algorithm": "sha256", "digest": DIGEST}]}
    ),
}


@pytest.mark.parametrize("content", OTHER.values(), ids=OTHER)
def test_a_good_signature_of_something_else(bundle: Path, new_key: Callable, content: dict[str, Any]) -> None:
    key, public = new_key()
    (bundle / "model.sig").write_text(signature(key, json.dumps(content).encode()), encoding="utf-8")
    with pytest.raises(TrustError, match="signs other content"):
        Predictor(bundle, trusted_key=public)


def test_a_good_signature_of_another_kind_of_message(bundle: Path, new_key: Callable) -> None:
    key, public = new_key()
    (bundle / "model.sig").write_text(signature(key, json.dumps(statement()).encode(), "text/plain"), encoding="utf-8")
    with pytest.raises(TrustError, match="was not signed by the owner"):
        Predictor(bundle, trusted_key=public)


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[]", b"\xff", b"{" * 100_000, b'{"dsseEnvelope": 1}', b'{"dsseEnvelope": {"payload": "%"}}'],
)
def test_a_signature_that_is_none(bundle: Path, content: bytes) -> None:
    pytest.importorskip("cryptography", reason="the extra verify")
    (bundle / "model.sig").write_bytes(content)
    with pytest.raises(TrustError, match=r"model\.sig is not a model-signing signature"):
        Predictor(bundle, trusted_key=SIGNED / "key.pub")


def test_a_signature_that_would_never_end(bundle: Path) -> None:
    pytest.importorskip("cryptography", reason="the extra verify")
    (bundle / "model.sig").unlink()
    (bundle / "model.sig").symlink_to("/dev/zero")
    with pytest.raises(BundleError, match=r"model\.sig is not a regular file"):
        Predictor(bundle, trusted_key=SIGNED / "key.pub")


def test_keys_of_no_use(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.pub, which is not a file"):
        Predictor(bundle, trusted_key=tmp_path / "none.pub")
    pytest.importorskip("cryptography", reason="the extra verify")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519

    (tmp_path / "key").write_text("no key")
    with pytest.raises(InputError, match="is not a PEM public key"):
        Predictor(bundle, trusted_key=tmp_path / "key")
    other = ed25519.Ed25519PrivateKey.generate().public_key()
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    (tmp_path / "key").write_bytes(other.public_bytes(serialization.Encoding.PEM, form))
    with pytest.raises(InputError, match=r"is a .*Ed25519PublicKey, expected an elliptic-curve key"):
        Predictor(bundle, trusted_key=tmp_path / "key")


def test_without_the_package_it_says_what_to_install(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cryptography.exceptions", None)
    with pytest.raises(DependencyError, match=r"trusted_key needs the package cryptography: pip install .*\[verify\]"):
        Predictor(bundle, trusted_key=SIGNED / "key.pub")


# A digest that was named.


@pytest.mark.parametrize("form", ["{}", "sha256:{}", " {}\n"])
def test_the_digest_that_was_named(form: str) -> None:
    pinned = form.format(DIGEST)
    assert Predictor(OLD, backend=ENGINE, trusted_digest=pinned, trust_code=True).digest == DIGEST
    assert Predictor(OLD, backend=ENGINE, trusted_digest=pinned.upper().replace("SHA", "sha"), trust_code=True)


def test_another_digest(bundle: Path) -> None:
    with pytest.raises(TrustError, match=r"has SHA-256 [0-9a-f]{12}…, expected 000000000000….*Nothing was"):
        Predictor(bundle, trusted_digest="0" * 64)
    (bundle / "manifest.json").write_text("not even JSON")
    with pytest.raises(TrustError, match=r"expected .*trusted_digest"):
        Predictor(bundle, trusted_digest=DIGEST)


@pytest.mark.parametrize("wrong", ["", "abc", DIGEST[:12], DIGEST + "0", "x" * 64, "md5:" + "0" * 32])
def test_what_is_no_digest(wrong: str) -> None:
    with pytest.raises(InputError, match=r"trusted_digest is .*expected the 64 hexadecimal digits"):
        Predictor(OLD, trusted_digest=wrong)


@pytest.mark.filterwarnings("ignore:.*lone artifact:RuntimeWarning")
@pytest.mark.skipif("onnx" not in backends.available(), reason="onnxruntime is not installed")
def test_a_lone_artifact_can_be_pinned_and_is_never_signed(bundle: Path) -> None:
    digest = hashlib.sha256((bundle / "model.onnx").read_bytes()).hexdigest()
    assert Predictor(bundle / "model.onnx", backend="onnx", trusted_digest=digest).digest == digest
    with pytest.raises(TrustError, match=r"expected .*trusted_digest"):
        Predictor(bundle / "model.onnx", backend="onnx", trusted_digest="0" * 64)
    with pytest.raises(TrustError, match="is a lone artifact, which no signature covers"):
        Predictor(bundle / "model.onnx", backend="onnx", trusted_key=SIGNED / "key.pub")


def test_the_command(bundle: Path, capsys: pytest.CaptureFixture) -> None:
    image = str(OLD / "golden" / "00.png")
    given = ["--bundle", str(bundle), "--backend", ENGINE, "--trust-code", image]
    assert main([*given, "--trusted-digest", DIGEST]) in (0, 1)
    assert image in capsys.readouterr().out
    assert main([*given, "--trusted-digest", "0" * 64]) == 2
    assert capsys.readouterr().err.startswith("TrustError: ")
    pytest.importorskip("cryptography", reason="the extra verify")
    assert main([*given, "--trusted-key", str(SIGNED / "key.pub")]) in (0, 1)
    assert image in capsys.readouterr().out
    (bundle / "model.sig").unlink()
    assert main([*given, "--trusted-key", str(SIGNED / "key.pub")]) == 2
    assert "is not signed" in capsys.readouterr().err
