"""A bundle that is not what its export wrote is refused by name, before any engine sees a byte of it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from stageproof.runtime import BundleError, Predictor, backends
from stageproof.runtime.bundle.manifest import Document, Golden, Manifest, read_manifest
from stageproof.runtime.bundle.verify import verified
from stageproof.runtime.serialization.digests import UNSEALED, is_sealed, seal, sha256_file


@pytest.fixture
def whole(copy: Path, scan: Path) -> Path:
    """A bundle with every kind of file that a manifest can name."""
    manifest = read_manifest(copy)
    (copy / "golden").mkdir(exist_ok=True)
    (copy / "golden" / "extra.jpg").write_bytes(scan.read_bytes())
    (copy / "NOTES.md").write_text("what it is", encoding="utf-8")
    golden = Golden("golden/extra.jpg", sha256_file(copy / "golden" / "extra.jpg"), (0.0,) * len(manifest.model.labels))
    note = Document("NOTES.md", sha256_file(copy / "NOTES.md"))
    manifest = Manifest(
        manifest.model,
        manifest.artifacts,
        manifest.provenance,
        manifest.guard,
        (*manifest.golden, golden),
        (*manifest.documents, note),
        manifest.labels_from,
    )
    (copy / "manifest.json").write_text(manifest.to_json(), encoding="utf-8")
    return copy


@pytest.fixture(autouse=True)
def nothing_is_loaded(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # built before, by engines
    def load(*args: object, **settings: object) -> None:
        raise AssertionError("an engine was asked to load a file of a bundle that should have been refused")

    monkeypatch.setattr(backends, "load", load)


def names(bundle: Path) -> list[str]:
    return [entry.file for entry in read_manifest(bundle).files]


def test_a_whole_bundle_is_verified(whole: Path) -> None:
    assert verified(whole) == read_manifest(whole)
    assert {"model.onnx", "model.ts", "golden/extra.jpg", "NOTES.md"} <= set(names(whole))


def test_one_flipped_byte_in_any_file(whole: Path) -> None:
    for name in names(whole):
        path = whole / name
        good = path.read_bytes()
        bad = bytearray(good)
        bad[len(bad) // 2] ^= 1
        path.unlink()  # the content is shared with the original
        path.write_bytes(bad)
        with pytest.raises(BundleError, match=rf"{re.escape(name)} has SHA-256 .* changed after export\. Not loaded"):
            Predictor(whole)
        path.write_bytes(good)
    verified(whole)


def test_a_missing_file(whole: Path, tmp_path: Path) -> None:
    for name in names(whole):
        os.rename(whole / name, tmp_path / "aside")  # noqa: PTH104
        with pytest.raises(BundleError, match=rf"{re.escape(name)} is listed in the manifest but missing"):
            Predictor(whole)
        os.rename(tmp_path / "aside", whole / name)  # noqa: PTH104


def test_a_folder_in_place_of_a_file(whole: Path) -> None:
    (whole / "NOTES.md").unlink()
    (whole / "NOTES.md").mkdir()
    with pytest.raises(BundleError, match=r"NOTES\.md is not a regular file"):
        Predictor(whole)


def test_swapped_files(whole: Path) -> None:
    for source, target in (("model.onnx", "aside"), ("model.ts", "model.onnx"), ("aside", "model.ts")):
        os.rename(whole / source, whole / target)  # noqa: PTH104
    with pytest.raises(BundleError, match=r"model\.(onnx|ts) has SHA-256"):
        Predictor(whole)


@pytest.mark.parametrize("name", ["other.onnx", "golden/x.PLAN", "guard2.npz", ".hidden.pt"])
def test_an_artifact_that_nobody_named(whole: Path, name: str) -> None:
    (whole / name).parent.mkdir(exist_ok=True)
    (whole / name).write_bytes(b"x")
    with pytest.raises(BundleError, match=rf"{re.escape(name)} is not listed in the manifest.*Nothing was loaded"):
        Predictor(whole)


def test_a_link_that_leaves_the_bundle(whole: Path, tmp_path: Path) -> None:
    os.rename(whole / "NOTES.md", tmp_path / "outside.md")  # noqa: PTH104
    (whole / "NOTES.md").symlink_to(tmp_path / "outside.md")
    with pytest.raises(BundleError, match=r"NOTES\.md is a symbolic link out of the bundle"):
        Predictor(whole)


def test_a_link_that_goes_round(whole: Path) -> None:
    (whole / "NOTES.md").unlink()
    (whole / "NOTES.md").symlink_to("NOTES.md")
    with pytest.raises(BundleError, match=r"NOTES\.md"):
        Predictor(whole)


def test_a_path_that_leaves_and_a_newer_schema(whole: Path, edit: Callable) -> None:
    edit(lambda data: data["artifacts"][0].update(file="../model.onnx"))
    with pytest.raises(BundleError, match=r"'\.\./model\.onnx' is not a relative path inside the bundle"):
        Predictor(whole)
    edit(lambda data: data.update(schema=2))
    with pytest.raises(BundleError, match=r"has schema 2, this runtime reads 1"):
        Predictor(whole)


def test_no_bundle_at_all(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"does not exist\. Make a bundle with: python -m export --out"):
        Predictor(tmp_path / "nothing")
    with pytest.raises(BundleError, match=r"has no manifest\.json"):
        Predictor(tmp_path)


def test_a_text_that_states_its_own_digest() -> None:
    text = seal(json.dumps({"a": UNSEALED, "b": 1, "sha256": UNSEALED}))
    stated = json.loads(text)["sha256"]
    assert json.loads(text)["a"] == UNSEALED
    assert is_sealed(text, stated)
    assert not is_sealed(text.replace('"b": 1', '"b": 2'), stated)
    assert not is_sealed(text, "0" * 64)
    assert not is_sealed(text, None)
