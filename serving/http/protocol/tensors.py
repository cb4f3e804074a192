"""Tensors of the Open Inference Protocol: inputs become images, and answers become outputs.

Independent of how a tensor was sent: as JSON, as binary data, or in a message of gRPC.
"""

from __future__ import annotations

import base64
import binascii
import json
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, TypeAlias

import numpy as np

from stageproof.runtime.images.reader import Source
from stageproof.serving.http.inference.batching import Answer
from stageproof.serving.http.inference.errors import bad

INPUTS: dict[str, tuple[str, list[list[int]]]] = {
    "image": ("BYTES", [[-1]]),
    "pixels": ("UINT8", [[-1, -1, -1], [-1, -1, -1, -1]]),
}
"""Input → datatype, and the allowed shapes; -1 is any size."""

OUTPUTS = {
    "label": "BYTES",
    "probabilities": "FP32",
    "status": "BYTES",
    "reason": "BYTES",
    "guard": "BYTES",
    "model_digest": "BYTES",
}
"""Output → datatype. All have shape [N] but probabilities, [N, C]."""

Values: TypeAlias = "bytes | memoryview | list[Any] | Sequence[bytes]"

_LENGTH = struct.Struct("<I")
_CHANNELS = (1, 3)


@dataclass(frozen=True)
class InputTensor:
    """An input as it was sent."""

    name: str
    datatype: str
    shape: list[int]
    raw: bytes | memoryview | None = None
    """Binary data: elements in row-major order, those of BYTES each after its length (uint32, little-endian)."""
    elements: list[Any] | None = None
    """Otherwise: the elements, nested as the shape says or flat. Of BYTES: bytes, or text in base64."""


@dataclass(frozen=True)
class OutputTensor:
    """An output: `values` are bytes for BYTES, a float32 array for FP32."""

    name: str
    datatype: str
    shape: list[int]
    values: list[bytes] | np.ndarray

    def raw(self) -> bytes:
        """The binary data, in the layout of `InputTensor.raw`."""
        if isinstance(self.values, np.ndarray):
            return self.values.astype("<f4").tobytes()
        return b"".join(_LENGTH.pack(len(value)) + value for value in self.values)

    def plain(self) -> list[Any]:
        """The elements as JSON has them, flat: numbers, or text."""
        if isinstance(self.values, np.ndarray):
            return list(self.values.reshape(-1).tolist())
        return [value.decode() for value in self.values]


def images_of(tensors: Sequence[InputTensor], most: int) -> list[Source]:
    """The images of the only input, ``image`` or ``pixels``. most: limit on their number. Raises Refusal (400)."""
    names = [tensor.name for tensor in tensors]
    for name in names:
        if name not in INPUTS:
            raise bad(f"there is no input {shown(name)}; expected one of 'image' and 'pixels'.")
    if len(names) != 1:
        raise bad(f"the request has {len(names)} inputs; expected exactly one of 'image' and 'pixels'.")
    (tensor,) = tensors
    datatype, shapes = INPUTS[tensor.name]
    if tensor.datatype != datatype:
        raise bad(f"input {tensor.name!r} has datatype {shown(tensor.datatype)}; expected {datatype}.")
    shape = tensor.shape
    if len(shape) not in map(len, shapes) or any(size < 1 for size in shape):
        expected = "[N]" if tensor.name == "image" else "[N, H, W] or [N, H, W, C]"
        raise bad(f"input {tensor.name!r} has shape {shown(shape)}; expected {expected}, each at least 1.")
    if shape[0] > most:
        raise bad(f"input {tensor.name!r} has {shape[0]} images; expected at most {most} in a request. Send several.")
    if tensor.name == "image":
        return list(_strings(tensor))
    if len(shape) == 4 and shape[3] not in _CHANNELS:
        raise bad(f"input 'pixels' has shape {shown(shape)}: {shape[3]} channels; expected 1 or 3, last.")
    return list(_pixels(tensor))


def _strings(tensor: InputTensor) -> list[bytes]:
    count = tensor.shape[0]
    if tensor.raw is not None:
        return _length_prefixed(memoryview(tensor.raw), count)
    elements = tensor.elements or []
    if len(elements) != count:
        raise bad(f"input 'image' has {len(elements)} elements; its shape says {count}.")
    return [_encoded(element, position) for position, element in enumerate(elements)]


def _length_prefixed(data: memoryview, count: int) -> list[bytes]:
    found, at = [], 0
    for position in range(count):
        if at + 4 > len(data):
            raise bad(f"the binary data of input 'image' ends before element {position} of {count}.")
        (length,) = _LENGTH.unpack_from(data, at)
        at += 4
        if at + length > len(data):
            raise bad(
                f"element {position} of input 'image' says that it has {length} bytes, but {len(data) - at} are left."
            )
        found.append(bytes(data[at : at + length]))
        at += length
    if at != len(data):
        raise bad(f"the binary data of input 'image' has {len(data) - at} bytes after its {count} elements.")
    return found


def _encoded(element: Any, position: int) -> bytes:
    if isinstance(element, bytes):
        return element
    if not isinstance(element, str):
        raise bad(f"element {position} of input 'image' is {_kind(element)}; expected a file in base64.")
    try:
        return base64.b64decode(element, validate=True)
    except (binascii.Error, ValueError):
        raise bad(
            f"element {position} of input 'image' is not base64. JSON carries files in base64; binary data "
            "carries them as they are."
        ) from None


def _pixels(tensor: InputTensor) -> np.ndarray:
    expected = prod(tensor.shape)
    if tensor.raw is not None:
        if len(tensor.raw) != expected:
            raise bad(f"input 'pixels' has {len(tensor.raw)} bytes; its shape {shown(tensor.shape)} needs {expected}.")
        return np.frombuffer(tensor.raw, np.uint8).reshape(tensor.shape)
    elements = tensor.elements or []
    nested = bool(elements) and isinstance(elements[0], list)
    flat = bytearray()
    for row in _rows(elements, tensor.shape if nested else [expected]):
        if not set(map(type, row)) <= {int}:
            raise bad("input 'pixels' has an element that is no integer; expected integers from 0 to 255.")
        try:
            flat += bytes(row)
        except ValueError:
            raise bad("input 'pixels' has an element outside of 0 to 255, the values of UINT8.") from None
    return np.frombuffer(bytes(flat), np.uint8).reshape(tensor.shape)


def _rows(values: list[Any], shape: Sequence[int]) -> Iterable[list[Any]]:
    """The innermost lists of a nested list of this shape."""
    if len(values) != shape[0]:
        raise bad(f"input 'pixels' has {len(values)} elements where its shape says {shape[0]}.")
    if len(shape) == 1:
        yield values
        return
    for value in values:
        if not isinstance(value, list):
            raise bad("the elements of input 'pixels' are not nested as its shape says; expected that, or a flat list.")
        yield from _rows(value, shape[1:])


def outputs_of(answer: Answer, names: Iterable[str]) -> list[OutputTensor]:
    """The outputs of these names for a request. A rejected image has an empty label, and probabilities of 0."""
    found = answer.predictions
    count, labels = len(found), answer.loaded.labels
    columns = {
        "label": lambda: [(one.label or "").encode() for one in found],
        "status": lambda: [one.status.encode() for one in found],
        "reason": lambda: [one.reason.encode() for one in found],
        "guard": lambda: [_json(one.guard if isinstance(one.guard, str) else dict(one.guard)) for one in found],
        "model_digest": lambda: [one.model_digest.encode() for one in found],
    }
    outputs = []
    for name in names:
        if name == "probabilities":
            rows = [[one.probabilities.get(label, 0.0) for label in labels] for one in found]
            outputs.append(OutputTensor(name, "FP32", [count, len(labels)], np.array(rows, np.float32)))
        else:
            outputs.append(OutputTensor(name, OUTPUTS[name], [count], columns[name]()))
    return outputs


def check_outputs(names: Sequence[str]) -> None:
    """Raise Refusal (400) for a requested output that does not exist, or is requested twice."""
    for name in names:
        if name not in OUTPUTS:
            raise bad(f"there is no output {shown(name)}; expected some of {', '.join(map(repr, OUTPUTS))}.")
    if len(set(names)) != len(names):
        raise bad("an output is requested twice; expected each once.")


def shown(value: object) -> str:
    """The value in a message, shortened."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
