"""What an ONNX file declares, looked at before an engine sees a byte of it, by a walk over the protobuf alone.

An engine believes what a file declares: 773 bytes that name a tensor of 17.6 GB get 17.6 GB, and weights "elsewhere"
are read from any path. Refused are

    external data         `python -m export` writes every weight into the file, which is then hashed as a whole
    sparse tensors        a few numbers that stand for a large array
    foreign operators     of another domain than ONNX's own, which a library would have to bring
    subgraphs, functions  loops, and definitions that double each other
    other operators       than those of `OPERATORS`: among the rest are those that make a large tensor of a small one
    sizes                 a tensor that declares other bytes than it has; shapes that multiply beyond `LARGEST`

Messages, fields and their numbers: onnx.proto (IR version 13). What a graph computes is not looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod

import numpy as np

from stageproof.runtime.serialization.protobuf import I32, LENGTH, VARINT, Message, varints

PARTS = 100_000
"""Fields of a file; the largest network here has 4,000, in int8 three times as many."""

OPERATORS = frozenset(
    re.findall(
        r"\w+",
        """Add AveragePool BatchNormalization Cast Clip Concat Constant Conv DequantizeLinear Div Dropout Flatten Gather
        Gemm GlobalAveragePool Identity MatMul Max MaxPool Min Mul QuantizeLinear ReduceMean Relu Reshape Shape Slice
        Softmax Squeeze Sub Transpose Unsqueeze""",
    )
)
"""Of graphs that take what `runtime.preprocess` gives."""
OF_PIXELS = frozenset(
    re.findall(
        r"\w+",
        """Abs And CastLike Ceil Equal Expand Floor Greater GreaterOrEqual Less LessOrEqual Mod Neg Not Or Pow Range
        ReduceMax ReduceSum Round Split Sqrt Where""",
    )
)
"""Beside them, of graphs that do the preprocessing too, which Predictor never serves."""

_BITS = {
    # TensorProto.DataType; text (8) has no size, and no network here has any.
    **dict.fromkeys((2, 3, 9, 17, 18, 19, 20, 24), 8),
    **dict.fromkeys((4, 5, 10, 16), 16),
    **dict.fromkeys((1, 6, 12), 32),
    **dict.fromkeys((7, 11, 13, 14), 64),
    **dict.fromkeys((21, 22, 23), 4),
    15: 128,
}
_TYPED = {4: 32, 10: 64, 5: 0, 7: 0, 11: 0}
"""Fields of TensorProto with values of one type → bits of a value; 0 where they are varints."""
_SPECIAL = ("", "ai.onnx")
_NUMBERS = 1 << 20
"""The largest integer of an attribute, such as a padding; what is not an index is at most 7 here."""


@dataclass
class Constant:
    """A tensor that the file holds."""

    shape: tuple[int, ...]
    integers: tuple[int, ...] | None = None
    """Its values where they are a few 64-bit integers, as of a shape."""


@dataclass
class Node:
    """One operation."""

    operator: str
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    numbers: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Attributes that are integers."""
    value: Constant | None = None
    """An attribute that is a tensor."""


@dataclass
class Graph:
    """What the walk found."""

    nodes: list[Node] = field(default_factory=list)
    constants: dict[str, Constant] = field(default_factory=dict)
    inputs: dict[str, tuple[int | None, ...]] = field(default_factory=dict)
    """Name → shape; None for a dimension that is not fixed."""


def examine(content: bytes, *, pixels: bool = False) -> Graph:
    """The graph of an ONNX file. Raises ValueError, saying what is wrong, for all that the module refuses but sizes of
    intermediate results (`runtime.artifacts.onnx_sizes`). Takes milliseconds.

    pixels: the graph takes pixels and does the preprocessing.
    """
    model = Message(memoryview(content), [PARTS])
    graph: Graph | None = None
    for number, kind, value in model.fields():
        if number == 7:
            if graph is not None:
                raise ValueError("it has two graphs")
            graph = _graph(model.inside(value))
        elif number in (20, 25):
            what = "a training graph" if number == 20 else "functions of its own"
            raise ValueError(f"it has {what}, which no network of this project has")
        elif number == 8 and kind == LENGTH:
            domain = _text(model.inside(value), 1)
            if domain not in _SPECIAL:
                raise ValueError(f"it needs operators of the domain {domain!r}, which are not ONNX's own")
    if graph is None:
        raise ValueError("it has no graph")
    known = OPERATORS | OF_PIXELS if pixels else OPERATORS
    if unknown := sorted({node.operator for node in graph.nodes} - known):
        raise ValueError(
            f"it has the operators {', '.join(map(repr, unknown[:5]))}, which no network of this project has"
        )
    return graph


def _graph(message: Message) -> Graph:
    graph = Graph()
    for number, _, value in message.fields():
        if number == 1:
            graph.nodes.append(_node(message.inside(value)))
        elif number == 5:
            name, constant = _tensor(message.inside(value))
            if name in graph.constants:
                raise ValueError(f"it has two tensors called {name[:80]!r}")
            graph.constants[name] = constant
        elif number == 11:
            name, shape = _input(message.inside(value))
            graph.inputs[name] = shape
        elif number == 15:
            raise ValueError("it has sparse tensors, which no network of this project has")
    return graph


def _node(message: Message) -> Node:
    node = Node(_text(message, 4))
    for number, kind, value in message.fields():
        if number in (1, 2) and not isinstance(value, int):
            (node.inputs if number == 1 else node.outputs).append(_decoded(value))
        elif number == 7 and kind == LENGTH and not isinstance(value, int):
            if (domain := _decoded(value)) not in _SPECIAL:
                raise ValueError(f"it has an operator of the domain {domain!r}, which is not ONNX's own")
        elif number == 5:
            _attribute(message.inside(value), node)
    return node


def _attribute(message: Message, node: Node) -> None:
    name, numbers, tensors = _text(message, 1), [], 0
    for number, _, value in message.fields():
        if number in (6, 11):
            raise ValueError(f"its operator {node.operator!r} has a graph of its own, as loops have")
        if number in (22, 23):
            raise ValueError("it has sparse tensors, which no network of this project has")
        if number in (5, 10):
            tensors += 1
            _, node.value = _tensor(message.inside(value))
        if number == 3 and isinstance(value, int):
            numbers.append(value)
        if number == 8:
            numbers += [value] if isinstance(value, int) else list(varints(value))
    if tensors > 1:
        raise ValueError(f"an attribute of its operator {node.operator!r} has several tensors")
    signed = tuple(value - (1 << 64) if value >> 63 else value for value in numbers)
    if name != "axis" and any(abs(value) > _NUMBERS for value in signed):
        raise ValueError(
            f"its operator {node.operator!r} has {name[:80]!r} {max(map(abs, signed))}, beyond any network's"
        )
    node.numbers[name] = signed


def _tensor(message: Message) -> tuple[str, Constant]:
    """Name and shape of a TensorProto whose values are all there. Raises ValueError for any other."""
    name = _text(message, 8)
    what, dims, kind = f"its tensor {name[:80]!r}", [], 0
    raw: memoryview | None = None
    typed: dict[int, int] = {}
    integers: list[int] = []
    for number, wire, value in message.fields():
        if number == 1:
            dims += [value] if isinstance(value, int) else list(varints(value))
        elif number == 2 and isinstance(value, int):
            kind = value
        elif number == 13 or (number == 14 and value):
            raise ValueError(f"{what} has its values in another file, which no manifest names")
        elif number in (3, 6):
            raise ValueError(f"{what} is a part of another one, or text")
        elif number == 9 and not isinstance(value, int):
            if raw is not None:
                raise ValueError(f"{what} has its values twice")
            raw = value
        elif number in _TYPED:
            typed[number] = typed.get(number, 0) + _count(number, wire, value)
            if number == 7 and len(integers) < 64:
                integers += [value] if isinstance(value, int) else list(varints(value[:640]))
    if kind not in _BITS:
        raise ValueError(f"{what} has the type {kind}, expected one of numbers")
    if len(dims) > 16 or any(one >= 1 << 40 for one in dims):
        raise ValueError(f"{what} has the shape {dims[:16]}, expected less")
    elements = prod(dims)
    if raw is not None and not typed:
        there, declared = len(raw), -(-elements * _BITS[kind] // 8)
        if there != declared:
            raise ValueError(f"{what} declares {declared} bytes and has {there}")
        if kind == 7 and elements <= 64:
            integers = [int(value) for value in np.frombuffer(raw, "<u8")]
    else:
        there = sum(typed.values())
        # Two complex halves for a value, or two values of 4 bits in one.
        expected = elements * 2 if kind in (14, 15) else -(-elements // 2) if _BITS[kind] == 4 else elements
        if raw is not None or len(typed) > 1 or there != expected:
            raise ValueError(f"{what} declares {elements} values and has {there}")
    signed = tuple(value - (1 << 64) if value >> 63 else value for value in integers)
    return name, Constant(tuple(dims), signed if kind == 7 and elements == len(signed) else None)


def _count(number: int, wire: int, value: int | memoryview) -> int:
    """How many values a field of a tensor has."""
    if isinstance(value, int) or (wire != LENGTH and wire == (I32 if _TYPED[number] == 32 else 1)):
        return 1
    if bits := _TYPED[number]:
        return len(value) * 8 // bits
    return int(np.count_nonzero(np.frombuffer(value, np.uint8) < 128))


def _input(message: Message) -> tuple[str, tuple[int | None, ...]]:
    """Name and shape of a ValueInfoProto of a tensor."""
    shape: list[int | None] = []
    for kind in _each(message, 2):
        for tensor in _each(kind, 1):
            for dims in _each(tensor, 2):
                for one in _each(dims, 1):
                    fixed = [value for number, _, value in one.fields() if number == 1 and isinstance(value, int)]
                    shape.append(fixed[-1] if fixed else None)
    return _text(message, 1), tuple(shape)


def _each(message: Message, number: int) -> Iterator[Message]:
    return (message.inside(value) for found, kind, value in message.fields() if found == number and kind != VARINT)


def _text(message: Message, number: int) -> str:
    """The text of a field, the last of several, as protobuf reads it; "" without one."""
    found = ""
    for at, kind, value in message.fields():
        if at == number and kind == LENGTH and not isinstance(value, int):
            found = _decoded(value)
    return found


def _decoded(value: memoryview) -> str:
    if len(value) > 4096:
        raise ValueError(f"it has a name of {len(value)} bytes")
    return bytes(value).decode("utf-8")
