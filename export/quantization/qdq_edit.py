"""Edits Q/DQ graphs: lists quantised layers, returns layers or additions to float32, changes activation types."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from onnx import ModelProto

WEIGHTED = ("Conv", "Gemm", "MatMul")

_KEEP_SIGN = ("MaxPool", "QuantizeLinear", "DequantizeLinear")
_UINT8 = 2
"""`onnx.TensorProto.UINT8`, without importing onnx for it."""


def layers(model: ModelProto) -> list[str]:
    """Names of the convolutions and matrix products, in graph order."""
    return [node.name for node in model.graph.node if node.op_type in WEIGHTED]


def float_layers_of(model: ModelProto) -> list[str]:
    """Names of the layers that are not quantised, in graph order."""
    made = {output: node for node in model.graph.node for output in node.output}
    return [
        node.name
        for node in model.graph.node
        if node.op_type in WEIGHTED
        and not all(name in made and made[name].op_type == "DequantizeLinear" for name in node.input[:2])
    ]


def with_float_layers(model: ModelProto, names: Iterable[str], original: ModelProto) -> ModelProto:
    """A copy of the Q/DQ graph in which the named layers use float32 inputs and weights; unused nodes are removed.

    original: the float32 graph that was quantised, for the weights. Raises KeyError for an unknown layer.
    """
    edited = copy.deepcopy(model)
    graph = edited.graph
    made = {output: node for node in graph.node for output in node.output}
    stored = {tensor.name: tensor for tensor in graph.initializer}
    weights = {tensor.name: tensor for tensor in original.graph.initializer}
    nodes = {node.name: node for node in graph.node if node.op_type in WEIGHTED}
    for name in names:
        node = nodes[name]
        for position, source in enumerate(node.input[:2]):
            dequantize = made.get(source)
            if dequantize is None or dequantize.op_type != "DequantizeLinear":
                continue
            if dequantize.input[0] in stored:
                tensor = weights[dequantize.input[0].removesuffix("_quantized")]
                if tensor.name not in stored:
                    graph.initializer.append(tensor)
                    stored[tensor.name] = tensor
                node.input[position] = tensor.name
            else:
                node.input[position] = made[dequantize.input[0]].input[0]
    _drop_unused(graph)
    return edited


def with_relus_rounded_once(model: ModelProto) -> ModelProto:
    """A copy of the Q/DQ graph without the Q/DQ pair before a ReLU whose output is quantised.

    ONNX Runtime's quantiser inserts a pair on both sides of a ReLU; the first wastes half of its range on values that
    the ReLU sets to 0, and every engine executes it.
    """
    edited = copy.deepcopy(model)
    made = {output: node for node in edited.graph.node for output in node.output}
    quantised = {node.input[0] for node in _activation_quantisers(edited)}
    for node in edited.graph.node:
        source = made.get(node.input[0]) if node.op_type == "Relu" and node.output[0] in quantised else None
        if source is not None and source.op_type == "DequantizeLinear":
            node.input[0] = made[source.input[0]].input[0]
    _drop_unused(edited.graph)
    return edited


def with_float_additions(model: ModelProto) -> ModelProto:
    """A copy of the Q/DQ graph in which residual additions are in float32 and only convolution inputs are quantised.

    Quantisation errors then do not accumulate along the shortcuts of a residual network.
    """
    edited = copy.deepcopy(model)
    made = {output: node for node in edited.graph.node for output in node.output}
    for node in edited.graph.node:
        for position, name in enumerate(node.input if node.op_type == "Add" else ()):
            source = made.get(name)
            if source is not None and source.op_type == "DequantizeLinear" and source.input[0] in made:
                node.input[position] = made[source.input[0]].input[0]
    _drop_unused(edited.graph)
    return edited


def has_float_additions(model: ModelProto) -> bool:
    """Whether no addition of the graph has a quantised input."""
    made = {output: node.op_type for node in model.graph.node for output in node.output}
    read = [made.get(name) for node in model.graph.node if node.op_type == "Add" for name in node.input]
    return "DequantizeLinear" not in read


def with_unsigned_activations(model: ModelProto) -> ModelProto:
    """A copy of the Q/DQ graph in which activations that are never negative are uint8 instead of int8.

    They then have 255 steps instead of 127. x86 multiplies unsigned with signed bytes, so OpenVINO needs no shift, and
    ONNX Runtime fuses a ReLU with its quantiser, whose saturation at 0 replaces the ReLU.
    """
    edited = copy.deepcopy(model)
    made = {output: node for node in edited.graph.node for output in node.output}

    def never_negative(name: str) -> bool:
        node = made.get(name)
        if node is None:
            return False
        return bool(node.op_type == "Relu") or (node.op_type in _KEEP_SIGN and never_negative(node.input[0]))

    _requantise(edited, [n for n in _activation_quantisers(edited) if never_negative(n.input[0])], np.uint8, 127 / 255)
    return edited


def with_signed_activations(model: ModelProto) -> ModelProto:
    """A copy of the Q/DQ graph with all activations in int8, with the same ranges: TensorRT supports no uint8."""
    edited = copy.deepcopy(model)
    stored = {tensor.name: tensor for tensor in edited.graph.initializer}
    unsigned = [n for n in _activation_quantisers(edited) if stored[n.input[2]].data_type == _UINT8]
    _requantise(edited, unsigned, np.int8, 255 / 127)
    return edited


def _activation_quantisers(model: ModelProto) -> list[Any]:
    stored = {tensor.name for tensor in model.graph.initializer}
    return [n for n in model.graph.node if n.op_type == "QuantizeLinear" and n.input[0] not in stored]


def _requantise(model: ModelProto, quantisers: list[Any], kind: type, factor: float) -> None:
    """Change the type of these quantisers and their dequantisers to `kind`, and multiply their scales by `factor`."""
    from onnx import numpy_helper

    graph = model.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    for quantise in quantisers:
        output = quantise.output[0]
        scale = numpy_helper.to_array(stored[quantise.input[1]]) * np.float32(factor)
        scale_name, zero_name = f"{output}_{np.dtype(kind).name}_scale", f"{output}_{np.dtype(kind).name}_zero"
        graph.initializer.append(numpy_helper.from_array(scale, scale_name))
        graph.initializer.append(numpy_helper.from_array(np.zeros((), kind), zero_name))
        readers = [n for n in graph.node if n.op_type == "DequantizeLinear" and n.input[0] == output]
        for node in (quantise, *readers):
            node.input[1], node.input[2] = scale_name, zero_name
    changed = {quantise.output[0] for quantise in quantisers}
    for value in [value for value in graph.value_info if value.name in changed]:
        graph.value_info.remove(value)  # it has the old type
    _drop_unused(graph)


def _drop_unused(graph: Any) -> None:
    """Remove nodes with unused outputs, then unused weights."""
    while True:
        read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
        idle = [node for node in graph.node if not read.intersection(node.output)]
        if not idle:
            break
        for node in idle:
            graph.node.remove(node)
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in read]:
        graph.initializer.remove(tensor)
