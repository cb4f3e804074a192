"""Inspection of an ONNX file before an engine loads it, by parsing the protobuf only.

Engines trust the sizes that a file declares: for a file of 773 bytes that declares a tensor of 17.6 GB they allocate
17.6 GB, and external weights are read from any path. Rejected are

    external data         the export writes all weights into the file, which is hashed as a whole
    sparse tensors        a few values can declare a large array
    custom operators      operators of other domains than ONNX's, which need a shared library
    subgraphs, functions  loops, and definitions that expand exponentially
    other operators       operators not in `OPERATORS`; some of them make large tensors from small ones
    sizes                 tensors whose declared size differs from their data; huge attributes

Messages and field numbers: onnx.proto (IR version 13). The computation of the graph is not checked.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod

import numpy as np

from stageproof.runtime.serialization.protobuf import I32, LENGTH, VARINT, Message, varints

PARTS = 100_000
"""Limit on the fields of a file; the largest network here has 4,000, in int8 three times as many."""

OPERATORS = frozenset(
    """Add AveragePool BatchNormalization Cast Clip Concat Constant Conv DequantizeLinear Div Dropout Erf Expand Flatten
    Gather Gelu Gemm GlobalAveragePool HardSigmoid HardSwish Identity LayerNormalization MatMul Max MaxPool Min Mul
    QuantizeLinear ReduceMean Relu Reshape Shape Sigmoid Slice Softmax Split Squeeze Sub Tanh Transpose
    Unsqueeze""".split()
)
"""Allowed operators of graphs that take the output of `runtime.preprocess`."""
OF_PIXELS = frozenset(
    """Abs And CastLike Ceil Equal Floor Greater GreaterOrEqual Less LessOrEqual Mod Neg Not Or Pow Range ReduceMax
    ReduceSum Round Sqrt Where""".split()
)
"""Additional operators of graphs with built-in preprocessing, which Predictor never loads."""

_BITS = {
    # TensorProto.DataType → bits per value; strings (8) are not supported.
    **dict.fromkeys((2, 3, 9, 17, 18, 19, 20, 24), 8),
    **dict.fromkeys((4, 5, 10, 16), 16),
    **dict.fromkeys((1, 6, 12), 32),
    **dict.fromkeys((7, 11, 13, 14), 64),
    **dict.fromkeys((21, 22, 23), 4),
    15: 128,
}
_TYPED = {4: 32, 10: 64, 5: 0, 7: 0, 11: 0}
"""Typed data fields of TensorProto → bits per value; 0 for varints."""
_SPECIAL = ("", "ai.onnx")
_NUMBERS = 1 << 20
"""Limit on integer attributes, such as paddings; except for indices, they are at most 7 in the networks here."""


@dataclass
class Constant:
    """A constant tensor of the file."""

    shape: tuple[int, ...]
    integers: tuple[int, ...] | None = None
    """Its values, if they are a few 64-bit integers, such as a shape; else None."""


@dataclass
class Node:
    """One operation."""

    operator: str
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    numbers: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Integer attributes."""
    value: Constant | None = None
    """Tensor attribute."""


@dataclass
class Graph:
    """The parsed graph."""

    nodes: list[Node] = field(default_factory=list)
    constants: dict[str, Constant] = field(default_factory=dict)
    inputs: dict[str, tuple[int | None, ...]] = field(default_factory=dict)
    """Name → shape; None for a dynamic dimension."""


def examine(content: bytes, *, pixels: bool = False) -> Graph:
    """The graph of an ONNX file. Raises ValueError, naming the finding, for everything that this module rejects; the
    sizes of intermediate results are checked by `runtime.artifacts.onnx_sizes`. Takes milliseconds.

    pixels: whether the graph has built-in preprocessing.
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
            f"its operator {node.operator!r} has {name[:80]!r} {max(map(abs, signed))}, beyond the limit of {_NUMBERS}"
        )
    node.numbers[name] = signed


def _tensor(message: Message) -> tuple[str, Constant]:
    """Name and shape of a TensorProto. Raises ValueError if its values are incomplete or external."""
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
            raise ValueError(f"{what} has its values in another file (external data)")
        elif number in (3, 6):
            raise ValueError(f"{what} is a segment of another tensor, or has strings")
        elif number == 9 and not isinstance(value, int):
            if raw is not None:
                raise ValueError(f"{what} has its values twice")
            raw = value
        elif number in _TYPED:
            typed[number] = typed.get(number, 0) + _count(number, wire, value)
            if number == 7 and len(integers) < 64:
                integers += [value] if isinstance(value, int) else list(varints(value[:640]))
    if kind not in _BITS:
        raise ValueError(f"{what} has data type {kind}, expected a numeric type")
    if len(dims) > 16 or any(one >= 1 << 40 for one in dims):
        raise ValueError(f"{what} has the shape {dims[:16]}, expected at most 16 dimensions below 2**40")
    elements = prod(dims)
    if raw is not None and not typed:
        there, declared = len(raw), -(-elements * _BITS[kind] // 8)
        if there != declared:
            raise ValueError(f"{what} declares {declared} bytes and has {there}")
        if kind == 7 and elements <= 64:
            integers = [int(value) for value in np.frombuffer(raw, "<u8")]
    else:
        there = sum(typed.values())
        # A complex value takes two entries; two 4-bit values share one.
        expected = elements * 2 if kind in (14, 15) else -(-elements // 2) if _BITS[kind] == 4 else elements
        if raw is not None or len(typed) > 1 or there != expected:
            raise ValueError(f"{what} declares {elements} values and has {there}")
    signed = tuple(value - (1 << 64) if value >> 63 else value for value in integers)
    return name, Constant(tuple(dims), signed if kind == 7 and elements == len(signed) else None)


def _count(number: int, wire: int, value: int | memoryview) -> int:
    """Number of values in a data field of a tensor."""
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
    """The text of a field, the last one if repeated (as in protobuf); "" if absent."""
    found = ""
    for at, kind, value in message.fields():
        if at == number and kind == LENGTH and not isinstance(value, int):
            found = _decoded(value)
    return found


def _decoded(value: memoryview) -> str:
    if len(value) > 4096:
        raise ValueError(f"it has a name of {len(value)} bytes")
    return bytes(value).decode("utf-8")
