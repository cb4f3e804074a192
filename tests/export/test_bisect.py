"""Bisect names the layer in which a fault was planted."""

from __future__ import annotations

import json
import shutil

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from stageproof.export.bisect.__main__ import main

PLANTED = "layer3.2.conv2"


@pytest.fixture(scope="module")
def faulty(firm_bundle, tmp_path_factory):
    """The bundle with one layer's weights perturbed, in `.onnx` (a rejected one) and in `.xml`."""
    import openvino

    folder = tmp_path_factory.mktemp("faulty") / "bundle"
    shutil.copytree(firm_bundle, folder)
    model = onnx.load(folder / "model.onnx")
    tensor = next(t for t in model.graph.initializer if t.name == f"{PLANTED}.weight")
    weight = numpy_helper.to_array(tensor)
    noise = np.random.default_rng(0).standard_normal(weight.shape).astype(np.float32)
    tensor.CopyFrom(numpy_helper.from_array(weight * (1 + np.float32(0.05) * noise), tensor.name))
    (folder / "rejected").mkdir()
    onnx.save(model, folder / "rejected" / "model.int8.onnx.rejected")
    openvino.save_model(openvino.Core().read_model(model.SerializeToString()), folder / "model.xml", False)
    return folder


@pytest.mark.parametrize("artifact", ["model.int8.onnx", "model.xml"])
@pytest.mark.slow
def test_the_planted_layer_is_the_first_and_adds_most(faulty, run, artifact, capsys, tmp_path):
    plot = tmp_path / "layers.png"
    arguments = [str(faulty), "--artifact", artifact, "--source", str(run), "--plot", str(plot)]
    assert main([*arguments, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["first"]["name"] == PLANTED
    assert found["most"][0]["name"] == PLANTED
    assert len(found["most"]) == 10
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_a_sound_artifact_differs_nowhere(firm_bundle, run, capsys):
    assert main([str(firm_bundle), "--source", str(run)]) == 0
    printed = capsys.readouterr().out
    assert "55 layers beside eager float32's graph" in printed
    assert "no layer differs by more than 0.001" in printed
    assert max(map(len, printed.splitlines())) <= 80


def test_what_is_not_there_and_what_has_no_layers_is_said(firm_bundle, run, capsys, tmp_path):
    assert main([str(firm_bundle), "--source", str(run), "--artifact", "model.int4.onnx"]) == 2
    assert "has no model.int4.onnx. It has: model.onnx." in capsys.readouterr().err
    bundle = tmp_path / "bundle"
    shutil.copytree(firm_bundle, bundle)
    shutil.copyfile(bundle / "model.onnx", bundle / "model.ts")
    assert main([str(bundle), "--source", str(run), "--artifact", "model.ts"]) == 2
    assert "model.ts cannot be opened layer by layer; .onnx and .xml files can." in capsys.readouterr().err


def test_another_models_weights_are_refused(firm_bundle, network, tmp_path, capsys):
    import torch

    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    torch.save(state, tmp_path / "other.pth")
    assert main([str(firm_bundle), "--source", str(tmp_path / "other.pth")]) == 2
    assert "holds other weights than" in capsys.readouterr().err
