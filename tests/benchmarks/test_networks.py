"""Networks of each kind through training, every format and the gate."""

from __future__ import annotations

import pytest
import torch
from torchvision.models import VisionTransformer

from stageproof.benchmarks.networks.table import COLUMNS, NETWORKS, measure
from stageproof.train.networks import ARCHITECTURES


@pytest.fixture
def small_transformer(monkeypatch):
    """A ViT of two layers at 32 × 32."""

    def build(classes: int, channels: int) -> VisionTransformer:
        assert channels == 3
        return VisionTransformer(32, 8, num_layers=2, num_heads=2, hidden_dim=32, mlp_dim=64, num_classes=classes)

    monkeypatch.setitem(ARCHITECTURES, "vit_small", build)
    return "vit_small"


def test_the_attention_of_a_transformer_stays_in_float32(small_transformer, tmp_path, said):
    floats, integers = measure(small_transformer, 32, tmp_path, (("onnx", "fp32"), ("onnx", "int8")))
    assert floats.reason == integers.reason == ""
    assert floats.changed == 0
    # A convolution; of each of two blocks the input and output projections and two layers; the head.
    assert floats.layers == "10 layers in fp32"
    assert integers.layers == "9 layers in int8, 1 layers in fp32"
    assert any(
        "attention (4 products of two activations), normalisation, additions and the head" in one for one in said
    )


@pytest.mark.parametrize("architecture", ["mobilenet_v3_small", "shufflenet_v2_x0_5"])
def test_a_small_network_equals_its_exports(architecture, tmp_path):
    for cell in measure(architecture, 32, tmp_path, (("torchscript", "fp32"), ("pytorch", "fp32"))):
        assert cell.reason == ""
        assert cell.changed == 0
        assert cell.difference < 1e-4


def test_a_changed_weight_is_noticed(tmp_path, monkeypatch):
    """The gate would fail for a network whose file has other weights."""
    from stageproof.export.formats import pytorch

    real = pytorch.copy.deepcopy

    def spoilt(model):
        copied = real(model)
        if not isinstance(copied, torch.nn.Module):
            return copied
        with torch.no_grad():
            copied.fc.weight.copy_(copied.fc.weight.flip(0))
        return copied

    monkeypatch.setattr(pytorch.copy, "deepcopy", spoilt)
    (cell,) = measure("shufflenet_v2_x0_5", 32, tmp_path, (("pytorch", "fp32"),))
    assert "model.safetensors in torch" in cell.reason
    assert cell.changed > 10


@pytest.mark.slow
@pytest.mark.parametrize("architecture", NETWORKS)
def test_each_network_of_the_table_passes_the_gate_in_every_format(architecture, tmp_path):
    for (name, precision), cell in zip(COLUMNS, measure(architecture, 32, tmp_path), strict=True):
        assert cell.reason == "", (name, precision)
        assert cell.changed == 0 or precision == "int8"
