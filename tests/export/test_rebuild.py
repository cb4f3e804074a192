"""`python -m export --rebuild`: what no longer fits this machine is made again, the rest stays as it is."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

from stageproof.export.__main__ import main
from stageproof.export.bundle.rebuild import stale
from stageproof.runtime.bundle.manifest import FILE, Manifest, read_manifest


def rewritten(bundle, change):
    """Write the manifest anew with `change` of its one artifact's checks, as an export elsewhere would have left it."""
    manifest = read_manifest(bundle)
    (artifact,) = manifest.artifacts
    changed = replace(artifact, checks=tuple(change(check) for check in artifact.checks))
    text = replace(manifest, artifacts=(changed,)).to_json()
    assert isinstance(manifest, Manifest)
    (bundle / FILE).unlink()  # its content may be shared with the bundle this one was copied from
    (bundle / FILE).write_text(text, encoding="utf-8")


@pytest.fixture
def bundle(small_bundle, tmp_path):
    shutil.copytree(small_bundle, tmp_path / "bundle")
    return tmp_path / "bundle"


def test_a_bundle_that_fits_is_left_alone(bundle, capsys):
    before = {path: path.stat().st_mtime_ns for path in bundle.rglob("*")}
    assert main(["--rebuild", "--out", str(bundle)]) == 0
    assert "nothing to rebuild" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in bundle.rglob("*")} == before


def test_another_engine_and_other_decisions_are_reasons(bundle):
    rewritten(bundle, lambda check: replace(check, engine="an engine 0.1"))
    (entry,) = stale(bundle, 1)
    assert entry.artifact.file == "model.onnx"
    assert "was checked in an engine 0.1, installed is " in entry.reason


def test_golden_images_that_move_are_a_reason(bundle):
    rewritten(bundle, lambda check: replace(check, parity={**check.parity, "tolerance": -1.0}))
    (entry,) = stale(bundle, 1)
    assert "changes a probability of a golden image by" in entry.reason


def test_a_changed_bundle_is_refused_not_mended(bundle, capsys):
    (bundle / "model.onnx").unlink()
    (bundle / "model.onnx").write_bytes(b"changed")
    assert main(["--rebuild", "--out", str(bundle)]) == 2
    assert "the file was changed after export" in capsys.readouterr().err


def test_without_its_run_it_says_so_and_the_bundle_stands(bundle, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rewritten(bundle, lambda check: replace(check, engine="an engine 0.1"))
    before = (bundle / FILE).read_bytes()
    assert main(["--rebuild", "--out", str(bundle)]) == 2
    assert "Name the run or checkpoint" in capsys.readouterr().err
    assert (bundle / FILE).read_bytes() == before


@pytest.mark.slow
def test_what_no_longer_fits_is_made_and_checked_again(firm_bundle, run, tmp_path, capsys):
    bundle = shutil.copytree(firm_bundle, tmp_path / "bundle")
    rewritten(bundle, lambda check: replace(check, engine="an engine 0.1"))
    assert main([str(run), "--rebuild", "--out", str(bundle), "--to", "tensorrt"]) == 0
    assert [artifact.file for artifact in read_manifest(bundle).artifacts] == ["model.onnx"]
    assert stale(bundle, 1) == []
    assert "model.onnx: was checked in an engine 0.1" in capsys.readouterr().err
