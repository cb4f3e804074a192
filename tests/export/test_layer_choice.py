"""Which layers of a graph are quantised."""

from __future__ import annotations

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="the extra export")

from stageproof.export.quantization.head_correction import fit_head  # noqa: E402
from stageproof.export.quantization.layer_choice import choose_layers  # noqa: E402


def graph(nodes: list[tuple[str, list[str], str]], stored: dict[str, tuple[int, ...]]):
    """A graph of these nodes, each named as its output; the last output is the graph's."""
    rng = np.random.default_rng(0)
    attributes = {"Gemm": {"transB": 1}}
    made = [
        onnx.helper.make_node(operator, inputs, [output], name=output, **attributes.get(operator, {}))
        for operator, inputs, output in nodes
    ]
    values = [
        onnx.numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name) for name, shape in stored.items()
    ]
    images = onnx.helper.make_tensor_value_info("images", 1, ["N", 4])
    logits = onnx.helper.make_tensor_value_info(nodes[-1][2], 1, ["N", 3])
    opset = [onnx.helper.make_opsetid("", 18)]
    return onnx.helper.make_model(
        onnx.helper.make_graph(made, "network", [images], [logits], values), opset_imports=opset, ir_version=10
    )


TRANSFORMER = [
    ("Conv", ["images", "patch"], "embedding"),
    ("MatMul", ["embedding", "in"], "projected"),
    ("Add", ["projected", "bias"], "query"),
    ("MatMul", ["query", "projected"], "scores"),
    ("Softmax", ["scores"], "attention"),
    ("MatMul", ["attention", "projected"], "mixed"),
    ("Gemm", ["mixed", "out"], "output"),
    ("Add", ["output", "embedding"], "residual"),
    ("Gemm", ["residual", "hidden"], "middle"),
    ("Relu", ["middle"], "active"),
    ("Gemm", ["active", "head"], "logits"),
]


def test_products_of_activations_additions_and_the_head_stay_in_float32():
    stored = dict.fromkeys(("patch", "in", "bias", "out", "hidden", "head"), (3, 3))
    choice = choose_layers(graph(TRANSFORMER, stored))
    assert choice.layers == ("embedding", "projected", "output")
    assert choice.products == 2
    assert "Add" not in choice.types
    assert {"scores", "mixed", "middle", "active", "logits"} <= set(choice.excluded)
    assert choice.sentence() == (
        "attention (2 products of two activations), normalisation, additions and the head stay in float32; 3 layers "
        "are quantised"
    )


def test_of_a_convolutional_network_convolutions_and_their_additions():
    nodes = [
        ("Conv", ["images", "first"], "a"),
        ("Add", ["a", "three"], "shifted"),
        ("Conv", ["shifted", "second"], "b"),
        ("Add", ["b", "a"], "sum"),
        ("Conv", ["sum", "third"], "c"),
        ("Add", ["c", "sum"], "last"),
        ("Gemm", ["last", "wide"], "inner"),
        ("HardSwish", ["inner"], "active"),
        ("Gemm", ["active", "head"], "logits"),
    ]
    choice = choose_layers(graph(nodes, dict.fromkeys(("first", "second", "third", "three", "wide", "head"), (3, 3))))
    assert choice.layers == ("a", "b", "c")
    assert choice.types == ("Conv", "Relu", "Add", "MaxPool")
    assert set(choice.excluded) == {"shifted", "last", "active"}, "a constant is added; behind the last convolution"
    assert choice.sentence() is None


def test_a_head_without_bias_is_corrected():
    pytest.importorskip("onnxruntime", reason="the extra onnx")
    model = graph([("Gemm", ["images", "head"], "logits")], {"head": (3, 4)})
    weight = onnx.numpy_helper.to_array(model.graph.initializer[0])
    images = np.random.default_rng(1).normal(size=(50, 4)).astype(np.float32)
    turn = np.array([[1, 0.1, 0], [0, 1.2, 0], [0.3, 0, 0.9]], np.float32)
    fit_head(model, images, images @ weight.T @ turn + 2, 1)
    found = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    assert np.allclose(found["head"], (weight.T @ turn).T, atol=1e-4)
    assert np.allclose(found["head_bias"], 2, atol=1e-4)


def test_a_network_that_ends_otherwise_is_not_changed(said):
    model = graph([("Gemm", ["images", "head"], "inner"), ("Relu", ["inner"], "logits")], {"head": (3, 4)})
    before = model.SerializeToString()
    fit_head(model, np.zeros((4, 4), np.float32), np.zeros((4, 3), np.float32), 1)
    assert model.SerializeToString() == before
    assert said == ["int8: the network ends in Relu, so the head is not corrected"]
