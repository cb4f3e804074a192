"""Inspection of an OpenVINO network (`.xml`) and its weights (`.bin`) before OpenVINO loads them.

OpenVINO reads a constant at the offset that its layer declares. Rejected are constants outside the weights or of
another size than their shape, layers of extensions, layers with a body (loops), operations not in `OPERATIONS`, and
constants whose total size far exceeds the weights, as when many layers refer to the same region.
"""

from __future__ import annotations

import re
from math import prod
from xml.etree import ElementTree

LARGEST = 4 << 20
"""Limit on the bytes of a topology; the largest network here has 0.4 MB."""
LAYERS = 20_000
OPERATIONS = frozenset(
    """Parameter Const Result Convolution GroupConvolution Add Multiply Subtract Divide ReLU PReLU Clamp Sigmoid Swish
    HSwish HSigmoid HardSigmoid Gelu Erf Tanh MVN MaxPool AvgPool ReduceMean MatMul FullyConnected Reshape Squeeze
    Unsqueeze Transpose Convert ConvertLike FakeQuantize FakeConvert Softmax SoftMax Concat Split VariadicSplit
    StridedSlice Slice Gather ShapeOf Flatten Identity BatchNormInference Broadcast""".split()
)
"""Allowed operations of networks that take the output of `runtime.preprocess`; Broadcast shapes the biases."""
OF_PIXELS = frozenset(
    """Abs Floor Ceiling Mod FloorMod Maximum Minimum Range Select Greater GreaterEqual Less LessEqual Equal Round
    NotEqual LogicalAnd LogicalOr LogicalNot ReduceSum ReduceMax Power Sqrt Negative Interpolate""".split()
)
"""Additional operations of networks with built-in preprocessing, which Predictor never loads."""
_OPSETS = re.compile(r"opset\d{1,3}")
_BITS = {
    **dict.fromkeys(("i8", "u8", "boolean", "bool", "f8e4m3", "f8e5m2", "f8e8m0", "nf8"), 8),
    **dict.fromkeys(("f16", "bf16", "i16", "u16"), 16),
    **dict.fromkeys(("f32", "i32", "u32"), 32),
    **dict.fromkeys(("f64", "i64", "u64"), 64),
    **dict.fromkeys(("i4", "u4", "nf4", "f4e2m1"), 4),
    **dict.fromkeys(("u2", "i2"), 2),
    **dict.fromkeys(("u1", "bin"), 1),
}
_LARGEST_NUMBER = 1 << 20
_LARGEST_SHAPE = 1 << 26
"""Limit on elements; the largest feature map of a network here has 1.6 million for one image."""


def parse(topology: bytes) -> ElementTree.Element:
    """The root element. Raises ValueError for content that could exhaust the parser, SyntaxError (of ElementTree) for
    invalid XML."""
    if len(topology) > LARGEST:
        raise ValueError(f"it has more than {LARGEST} bytes")
    if b"<!DOCTYPE" in topology or b"\0" in topology:  # entities could make a small file large; UTF-16 could hide them
        raise ValueError("it declares a document type or is not UTF-8, and OpenVINO writes neither")
    return ElementTree.fromstring(topology)


def examine(topology: bytes, weights: bytes, *, pixels: bool = False) -> None:
    """Raise ValueError, naming the finding, for a network that no export of this project writes, and as `parse`.

    pixels: whether the network has built-in preprocessing.
    """
    network = parse(topology)
    if network.tag != "net":
        raise ValueError(f"its root element is <{network.tag[:80]}>, expected <net> of an OpenVINO network")
    listed = network.findall("layers/layer")
    if len(listed) > LAYERS or len(listed) != sum(1 for _ in network.iter("layer")):
        raise ValueError(f"it has more than {LAYERS} layers, or layers within layers, as loops have")
    known, total = OPERATIONS | OF_PIXELS if pixels else OPERATIONS, 0
    for layer in listed:
        kind, name = layer.get("type", ""), layer.get("name", "")[:80]
        if kind not in known or not _OPSETS.fullmatch(layer.get("version", "")):
            version = layer.get("version", "")
            raise ValueError(f"its layer {name!r} is {kind[:80]!r} of {version[:80]!r}, which no network here has")
        data = layer.find("data")
        if kind == "Const":
            total += _constant(layer, name, weights)
        elif data is not None:
            _assert_small(data, name)
    if total > 2 * len(weights) + (1 << 20):
        raise ValueError(f"its constants have {total} bytes together, but its weights have {len(weights)}")


def _constant(layer: ElementTree.Element, name: str, weights: bytes) -> int:
    """Size of a constant in bytes. Raises ValueError if it is outside the weights or does not fit its shape."""
    data = layer.find("data")
    if data is None:
        raise ValueError(f"its constant {name!r} has no <data> element")
    offset, size = _number(data.get("offset"), name), _number(data.get("size"), name)
    kind, shape = data.get("element_type", ""), data.get("shape", "")
    if kind == "string" or kind not in _BITS:
        raise ValueError(f"its constant {name!r} has type {kind[:20]!r}, expected a numeric type")
    dims = [_number(one, name) for one in re.split(r"[,\s]+", shape) if one]
    declared = -(-prod(dims) * _BITS[kind] // 8)
    ports = layer.findall("output/port")
    other = [prod(_number(dim.text, name) for dim in port.findall("dim")) for port in ports]
    if declared != size or any(one != prod(dims) for one in other):
        raise ValueError(f"its constant {name!r} declares {declared} bytes by its shape and {size} by its size")
    if offset + size > len(weights):
        raise ValueError(f"its constant {name!r} ends at byte {offset + size}, but its weights have {len(weights)}")
    if kind in ("i64", "u64", "i32", "u32") and size <= 128:  # possibly a target shape for broadcasting
        width = _BITS[kind] // 8
        parts = (weights[at : at + width] for at in range(offset, offset + size, width))
        values = [int.from_bytes(part, "little", signed=True) for part in parts]
        if prod(value for value in values if 0 < value < 2**31 - 1) > _LARGEST_SHAPE:
            raise ValueError(f"its constant {name!r} is a shape {values}, beyond {_LARGEST_SHAPE} elements")
    return size


def _assert_small(data: ElementTree.Element, name: str) -> None:
    for key, value in data.attrib.items():
        if key in ("shape", "element_type") or len(value) > 4096:
            continue
        numbers = re.findall(r"\d+", value) if re.fullmatch(r"[-\d, ]+", value) else []
        if any(len(digits) > 15 or int(digits) > _LARGEST_NUMBER for digits in numbers):
            raise ValueError(f"its layer {name!r} has {key!r} {value[:80]!r}, beyond the limit of {_LARGEST_NUMBER}")


def _number(digits: str | None, name: str) -> int:
    if digits is None or not re.fullmatch(r"\s*\d{1,15}\s*", digits):
        raise ValueError(f"its constant {name!r} has {(digits or '')[:20]!r}, expected a number")
    return int(digits)
