"""Chooses the layers of an ONNX graph that are quantised, by the kind of network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stageproof.export.quantization.qdq_edit import WEIGHTED

if TYPE_CHECKING:
    from onnx import ModelProto

_IN_HEAD = ("Gemm", "Relu")


@dataclass(frozen=True)
class LayerChoice:
    """What is quantised, and what stays in float32 with the reason."""

    layers: tuple[str, ...]
    """Names of the convolutions and matrix products that are quantised."""
    types: tuple[str, ...]
    """ONNX operators that are quantised."""
    excluded: tuple[str, ...]
    """Names of nodes of these types that stay in float32."""
    products: int
    """Number of products of two activations, as in attention, which stay in float32."""

    def sentence(self) -> str | None:
        """What stays in float32 besides the head; None for a convolutional network."""
        if "MatMul" not in self.types:
            return None
        kept = f"attention ({self.products} products of two activations), " if self.products else ""
        return f"{kept}normalisation, additions and the head stay in float32; {len(self.layers)} layers are quantised"


def choose_layers(model: ModelProto) -> LayerChoice:
    """The layers to quantise.

    Convolutional networks: all convolutions, with the ReLUs, additions and max pooling between them; fully connected
    layers stay in float32. Networks with matrix products inside (ViT, Swin, ConvNeXt): convolutions and products with
    stored weights; additions, whose inputs have outliers there, and products of two activations stay in float32.
    Operations after the last quantised layer always stay in float32, since their error would reach the head directly.
    """
    stored = {tensor.name for tensor in model.graph.initializer}
    weighted = [node for node in model.graph.node if node.op_type in WEIGHTED]
    by_weights = [node for node in weighted if any(name in stored for name in node.input[:2])]
    convolutional = not any(node.op_type == "MatMul" for node in by_weights)
    head = _head(model)
    layers = [
        node.name
        for node in by_weights
        if node.name not in head and (node.op_type == "Conv" or not convolutional) and node.input[1] in stored
    ]
    types = ("Conv", "Relu", "Add", "MaxPool") if convolutional else ("Conv", "MatMul", "Gemm", "Relu", "MaxPool")
    chosen = set(layers)
    excluded = {node.name for node in weighted if node.op_type in types and node.name not in chosen}
    # Additions of constants are part of an activation function, such as x + 3 of hard swish.
    excluded |= {node.name for node in model.graph.node if node.op_type == "Add" and stored & set(node.input)}
    excluded |= set(_behind(model, chosen))
    return LayerChoice(tuple(layers), types, tuple(sorted(excluded)), len(weighted) - len(by_weights))


def _head(model: ModelProto) -> set[str]:
    """Names of the fully connected layers, and ReLUs between them, that end in the output."""
    made = {output: node for node in model.graph.node for output in node.output}
    found, node = set(), made.get(model.graph.output[0].name)
    while node is not None and node.op_type in _IN_HEAD:
        found.add(node.name)
        node = made.get(node.input[0])
    return found


def _behind(model: ModelProto, layers: set[str]) -> list[str]:
    """Names of the nodes whose outputs reach no layer that is quantised."""
    needed: set[str] = set()
    behind = []
    for node in reversed(model.graph.node):
        if node.name in layers or needed.intersection(node.output):
            needed.update(node.input)
        elif node.op_type not in WEIGHTED:
            behind.append(node.name)
    return behind
