"""A bundle as a model repository of Triton. tests/serving/test_open_inference.py runs it in the real tritonserver."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from stageproof.export.__main__ import main
from stageproof.export.triton import model
from stageproof.export.triton.repository import MAX_BATCH_SIZE, NAME, check_repository, write_repository
from stageproof.runtime.bundle.manifest import read_manifest
from stageproof.runtime.bundle.verify import verified
from stageproof.runtime.errors import BundleError, InputError
from stageproof.serving.http.protocol.tensors import INPUTS, OUTPUTS


@pytest.fixture
def old_bundle() -> Path:
    """A bundle of version 0.1. Do not change it: copy it."""
    return Path(__file__).resolve().parents[1] / "data" / "bundle-0.1"


def test_the_repository_has_the_sealed_bundle_and_the_backend(old_bundle, tmp_path):
    other = tmp_path / "models" / "other"
    other.mkdir(parents=True)
    target = write_repository(old_bundle, tmp_path / "models")
    assert target == tmp_path / "models" / NAME
    assert verified(target / "1" / "bundle") == read_manifest(old_bundle)
    assert (target / "1" / "model.py").read_text() == Path(model.__file__).read_text()
    assert sorted(path.name for path in target.iterdir()) == ["1", "config.pbtxt"]
    assert sorted(path.name for path in target.parent.iterdir()) == ["other", NAME], "nothing is left of the work"
    (target / "1" / "old").touch()
    write_repository(old_bundle, tmp_path / "models")
    assert not (target / "1" / "old").exists(), "an earlier one is replaced whole"


def test_the_configuration_declares_the_tensors_of_the_service(old_bundle, tmp_path):
    text = (write_repository(old_bundle, tmp_path / "models") / "config.pbtxt").read_text()
    types = {"BYTES": "TYPE_STRING", "UINT8": "TYPE_UINT8", "FP32": "TYPE_FP32"}
    found = dict(re.findall(r'name: "(\w+)" data_type: (\w+)', text))
    assert found == {name: types[kind] for name, kind in {**{n: k for n, (k, _) in INPUTS.items()}, **OUTPUTS}.items()}
    assert set(model.TEXTS) == set(OUTPUTS) - {"probabilities"}
    assert f"max_batch_size: {MAX_BATCH_SIZE}\n" in text
    assert "dims: [ 4 ]" in text
    assert text.count("optional: true") == 2


def test_what_is_not_ours_is_not_replaced(old_bundle, tmp_path):
    (tmp_path / "models" / NAME).mkdir(parents=True)
    (tmp_path / "models" / NAME / "config.pbtxt").write_text('backend: "onnxruntime"\n')
    with pytest.raises(InputError, match=r"stageproof exists and was not written by --triton"):
        write_repository(old_bundle, tmp_path / "models")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"is a file\. Give the folder of a model repository"):
        check_repository(tmp_path / "file", old_bundle)
    with pytest.raises(InputError, match="is inside the bundle"):
        check_repository(old_bundle / "models", old_bundle)


def test_a_changed_bundle_is_refused(old_bundle, tmp_path):
    bundle = tmp_path / "bundle"
    shutil.copytree(old_bundle, bundle)
    (bundle / "model.onnx").unlink()
    (bundle / "model.onnx").write_bytes(b"changed")
    with pytest.raises(BundleError, match="was changed after export"):
        write_repository(bundle, tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_the_command_checks_the_repository_before_any_work(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main([str(tmp_path / "no-run"), "--triton", str(tmp_path / "file")]) == 2
    assert "is a file. Give the folder of a model repository" in capsys.readouterr().err
