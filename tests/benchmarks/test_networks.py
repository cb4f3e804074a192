"""Networks of each kind through training, every format and the gate."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torchvision.models import VisionTransformer

from stageproof.benchmarks.networks import NETWORKS
from stageproof.benchmarks.networks.table import COLUMNS, jobs, measure
from stageproof.train.networks import ARCHITECTURES


@pytest.fixture
def small_transformer(monkeypatch):
    """A ViT of two layers at 32 × 32."""

    def build(classes: int, channels: int) -> VisionTransformer:
        assert channels == 3
        return VisionTransformer(32, 8, num_layers=2, num_heads=2, hidden_dim=32, mlp_dim=64, num_classes=classes)

    monkeypatch.setitem(ARCHITECTURES, "vit_small", build)
    return "vit_small"


@pytest.mark.slow
def test_the_attention_of_a_transformer_stays_in_float32(small_transformer, tmp_path, said):
    """Whether its int8 passes depends on its weights, which were hardly trained; its graph does not."""
    from stageproof.export.formats.graph_store import quantisation_inputs
    from stageproof.export.quantization.int8 import insert_qdq
    from stageproof.export.quantization.qdq_edit import float_layers_of, layers

    (floats,) = measure(small_transformer, 32, tmp_path / "floats", (("openvino", "fp32"),), 64)
    assert floats.reason == ""
    assert floats.changed == 0
    _, job = jobs(small_transformer, 32, tmp_path / "integers", 64)
    _, quantised = insert_qdq(quantisation_inputs(job, "int8"))
    kept = [node for node in quantised.graph.node if node.name in float_layers_of(quantised)]
    # A convolution; of each of two blocks the input and output projections, two layers and two products; the head.
    assert len(layers(quantised)) == 14
    assert [node.op_type for node in kept] == ["MatMul"] * 4 + ["Gemm"]
    assert any("attention (4 products of two activations), normalisation, additions and the" in one for one in said)


@pytest.mark.parametrize("architecture", ["mobilenet_v3_small", "shufflenet_v2_x0_5"])
def test_a_small_network_equals_its_exports(architecture, tmp_path):
    (cell,) = measure(architecture, 32, tmp_path, (("pytorch", "fp32"),), 64)
    assert cell.reason == ""
    assert cell.changed == 0
    assert cell.difference < 1e-3


@pytest.mark.slow
def test_a_changed_weight_is_noticed(tmp_path, monkeypatch):
    """The gate would fail for a network whose file has other weights."""
    from stageproof.export.formats import pytorch

    real = pytorch.copy.deepcopy

    def spoilt(model):
        copied = real(model)
        if not isinstance(copied, torch.nn.Module):
            return copied
        with torch.no_grad():
            copied.classifier[3].weight.copy_(copied.classifier[3].weight.flip(0))
        return copied

    monkeypatch.setattr(pytorch, "copy", SimpleNamespace(deepcopy=spoilt))
    (cell,) = measure("mobilenet_v3_small", 32, tmp_path, (("pytorch", "fp32"),))
    assert "model.safetensors in torch" in cell.reason
    assert cell.changed > 10


@pytest.mark.slow
@pytest.mark.parametrize("architecture", NETWORKS)
def test_each_network_of_the_table_passes_the_gate_in_every_format_or_its_int8_is_refused(architecture, tmp_path):
    for (name, precision), cell in zip(COLUMNS, measure(architecture, 32, tmp_path), strict=True):
        if precision == "int8" and cell.reason:  # as hard swish after one step of training
            assert cell.reason.startswith("not built: int8 is not expected to pass the gate"), name
            continue
        assert cell.reason == "", (name, precision)
        assert cell.changed == 0 or precision == "int8"
