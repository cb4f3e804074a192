"""Bisect names the layer in which a fault was planted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from stageproof.export.bisect.__main__ import main
from tests import tiny


@pytest.fixture(scope="module", autouse=True)
def known():
    with tiny.known():
        yield


def faulty(bundle: Path, planted: str, folder: Path) -> Path:
    """The bundle with one layer's weights perturbed, in `.onnx` (a rejected one) and in `.xml`."""
    import openvino

    shutil.copytree(bundle, folder)
    model = onnx.load(folder / "model.onnx")
    tensor = next(t for t in model.graph.initializer if t.name == f"{planted}.weight")
    weight = numpy_helper.to_array(tensor)
    noise = np.random.default_rng(0).standard_normal(weight.shape).astype(np.float32)
    tensor.CopyFrom(numpy_helper.from_array(weight * (1 + np.float32(0.05) * noise), tensor.name))
    (folder / "rejected").mkdir()
    onnx.save(model, folder / "rejected" / "model.int8.onnx.rejected")
    openvino.save_model(openvino.Core().read_model(model.SerializeToString()), folder / "model.xml", False)
    return folder


def assert_found(bundle: Path, source: Path, artifact: str, planted: str, capsys) -> dict:
    """What bisect prints of the artifact, in which it must find the layer."""
    plot = bundle.parent / "layers.png"
    arguments = [str(bundle), "--artifact", artifact, "--source", str(source), "--plot", str(plot)]
    assert main([*arguments, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["first"]["name"] == planted
    assert found["most"][0]["name"] == planted
    assert plot.read_bytes().startswith(b"\x89PNG")
    return found


@pytest.mark.parametrize("artifact", ["model.int8.onnx", "model.xml"])
def test_the_planted_layer_is_the_first_and_adds_most(small_bundle, tiny_run, artifact, capsys, tmp_path):
    bundle = faulty(small_bundle, "fc", tmp_path / "bundle")
    assert len(assert_found(bundle, tiny_run, artifact, "fc", capsys)["most"]) == 2


@pytest.mark.slow
@pytest.mark.parametrize("artifact", ["model.int8.onnx", "model.xml"])
def test_in_the_published_network_too(firm_bundle, run, artifact, capsys, tmp_path):
    bundle = faulty(firm_bundle, "layer3.2.conv2", tmp_path / "bundle")
    assert len(assert_found(bundle, run, artifact, "layer3.2.conv2", capsys)["most"]) == 10


def test_a_sound_artifact_differs_nowhere(small_bundle, tiny_run, capsys):
    assert main([str(small_bundle), "--source", str(tiny_run)]) == 0
    printed = capsys.readouterr().out
    assert "2 layers compared with the float32 graph" in printed
    assert "no layer differs by more than 0.001" in printed
    assert max(map(len, printed.splitlines())) <= 80


def test_what_is_not_there_and_what_has_no_layers_is_said(small_bundle, tiny_run, capsys, tmp_path):
    assert main([str(small_bundle), "--source", str(tiny_run), "--artifact", "model.int4.onnx"]) == 2
    assert "has no model.int4.onnx. It has: model.onnx." in capsys.readouterr().err
    bundle = tmp_path / "bundle"
    shutil.copytree(small_bundle, bundle)
    shutil.copyfile(bundle / "model.onnx", bundle / "model.ts")
    assert main([str(bundle), "--source", str(tiny_run), "--artifact", "model.ts"]) == 2
    assert "model.ts: layer outputs can be read from .onnx and .xml files only." in capsys.readouterr().err


def test_another_models_weights_are_refused(small_bundle, tiny_checkpoint, capsys):
    assert main([str(small_bundle), "--source", str(tiny_checkpoint), "--architecture", tiny.NAME]) == 2
    assert "has other weights than" in capsys.readouterr().err
