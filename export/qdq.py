"""Edit a Q/DQ graph: which layers are quantised, and put some of them back to float."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from onnx import ModelProto

WEIGHTED = ("Conv", "Gemm", "MatMul")


def layers(model: ModelProto) -> list[str]:
    """Names of the convolutions and matrix products, in the order of the graph."""
    return [node.name for node in model.graph.node if node.op_type in WEIGHTED]


def float_layers_of(model: ModelProto) -> list[str]:
    """Those of them that compute in float."""
    made = {output: node for node in model.graph.node for output in node.output}
    return [
        node.name
        for node in model.graph.node
        if node.op_type in WEIGHTED
        and not all(name in made and made[name].op_type == "DequantizeLinear" for name in node.input[:2])
    ]


def with_float_layers(model: ModelProto, names: Iterable[str], original: ModelProto) -> ModelProto:
    """A copy of the Q/DQ graph in which the named layers read their input as it was before quantisation.

    original: the float graph that was quantised, which still has the weights. What no layer reads any more is removed.
    Raises KeyError for a name that is no layer of the graph.
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


def with_parted_readers(model: ModelProto) -> ModelProto:
    """A copy of the Q/DQ graph in which every reader of a quantised activation has a quantiser of its own, the second
    one's scale a last bit larger.

    Where one has several readers, as before a residual, ONNX Runtime 1.31 turns some of its int8 into uint8 and not the
    others, and then computes 20 of ResNet50's convolutions in float. It merges quantisers that are quite alike.
    OpenVINO is a quarter slower with more quantisers, so only the `.onnx` has them.
    """
    from onnx import numpy_helper

    edited = copy.deepcopy(model)
    graph = edited.graph
    made = {output: node for node in graph.node for output in node.output}
    stored = {tensor.name: tensor for tensor in graph.initializer}
    readers: dict[str, list[tuple[Any, int]]] = {}
    for node in graph.node:
        for position, name in enumerate(node.input):
            readers.setdefault(name, []).append((node, position))
    nodes = []
    for node in graph.node:
        nodes.append(node)
        if node.op_type != "DequantizeLinear" or node.input[0] not in made:
            continue
        source = made[node.input[0]]
        scale = numpy_helper.to_array(stored[source.input[1]])
        for number, (reader, position) in enumerate(readers.get(node.output[0], [])[1:], 2):
            scale = np.nextafter(scale, np.float32(np.inf))
            quantise, dequantise = copy.deepcopy(source), copy.deepcopy(node)
            for one in (quantise, dequantise):
                one.name, one.output[0], one.input[1] = (
                    f"{name}_{number}" for name in (one.name, one.output[0], one.input[1])
                )
            dequantise.input[0] = quantise.output[0]
            graph.initializer.append(numpy_helper.from_array(scale, quantise.input[1]))
            reader.input[position] = dequantise.output[0]
            nodes += [quantise, dequantise]
    del graph.node[:]
    graph.node.extend(nodes)
    return edited


def _drop_unused(graph: Any) -> None:
    """Remove nodes whose results nothing reads, then weights that nothing reads."""
    while True:
        read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
        idle = [node for node in graph.node if not read.intersection(node.output)]
        if not idle:
            break
        for node in idle:
            graph.node.remove(node)
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in read]:
        graph.initializer.remove(tensor)
