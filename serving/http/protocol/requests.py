"""Inference requests in JSON, with or without binary tensors, and their responses."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from stageproof.runtime.images.reader import Source
from stageproof.serving.http.inference.batching import Answer
from stageproof.serving.http.inference.errors import Refusal, bad
from stageproof.serving.http.protocol.metadata import VERSION
from stageproof.serving.http.protocol.tensors import (
    OUTPUTS,
    InputTensor,
    check_outputs,
    images_of,
    outputs_of,
    shown,
)

HEADER = "inference-header-content-length"
"""Length of the JSON at the start of a body with binary tensors."""

MAX_JSON = 8 << 20
"""Limit on the bytes of JSON: parsed, it can take twenty times its size."""

_UNSUPPORTED = ("sequence_id", "sequence_start", "sequence_end", "classification", "shared_memory_region")
"""Parameters of extensions that would change the answer, and are refused; other unknown ones have no effect."""


@dataclass(frozen=True)
class InferRequest:
    """A valid inference request."""

    images: list[Source]
    outputs: tuple[str, ...]
    """Names of the outputs, in the order of the response."""
    id: str = ""
    timeout: float | None = None
    """Seconds that the client waits; None: not stated."""
    binary: frozenset[str] = field(default=frozenset())
    """Outputs that are returned as binary data."""


def read(body: bytes | bytearray, header: str | None, most: int) -> InferRequest:
    """The request in a body. header: value of `HEADER`; None: all of it is JSON. most: limit on the images.

    Raises Refusal, 400 or 413.
    """
    view = memoryview(body)
    length = len(view)
    if header is not None:
        if not re.fullmatch("[0-9]{1,12}", header.strip()):
            raise bad(f"the header Inference-Header-Content-Length is {shown(header)}; expected a number of bytes.")
        length = int(header)
        if length > len(view):
            raise bad(
                f"the header Inference-Header-Content-Length is {length}; the body has {len(view)} bytes. Expected at "
                "most that."
            )
    if length > MAX_JSON:
        raise Refusal(
            413,
            f"the JSON has {length} bytes; expected at most {MAX_JSON}. Send large tensors as binary data (header "
            "Inference-Header-Content-Length).",
        )
    data = _json(bytes(view[:length]))
    parameters = parameters_of(data, "the request")
    tensors, at = [], length
    for entry in _objects(data, "inputs"):
        tensor, at = _tensor(entry, view, at, binary=header is not None)
        tensors.append(tensor)
    if at != len(view):
        raise bad(f"the body has {len(view) - at} bytes after its tensors; expected none.")
    every = _flag(parameters, "binary_data_output", default=False)
    wanted = {}
    for entry in _objects(data, "outputs") if "outputs" in data else ():
        name = _text(entry, "name", "an output")
        if name in wanted:
            check_outputs([name, name])
        wanted[name] = _flag(parameters_of(entry, "an output"), "binary_data", default=every)
    check_outputs(list(wanted))
    outputs = wanted or dict.fromkeys(OUTPUTS, every)
    return InferRequest(
        images_of(tensors, most),
        tuple(outputs),
        _text(data, "id", "the request") if "id" in data else "",
        timeout_of(parameters),
        frozenset(name for name, is_binary in outputs.items() if is_binary),
    )


def write(request: InferRequest, answer: Answer, name: str) -> tuple[bytes, int | None]:
    """The body of the response, and the length of its JSON; None if all of it is JSON. name: of the model."""
    entries, blobs = [], []
    for tensor in outputs_of(answer, request.outputs):
        entry: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape}
        if tensor.name in request.binary:
            blobs.append(tensor.raw())
            entry["parameters"] = {"binary_data_size": len(blobs[-1])}
        else:
            entry["data"] = tensor.plain()
        entries.append(entry)
    data = {"model_name": name, "model_version": VERSION}
    if request.id:
        data["id"] = request.id
    more = {"parameters": {"bundle_digest": answer.loaded.bundle_digest}, "outputs": entries}
    text = json.dumps({**data, **more}, separators=(",", ":")).encode()
    return b"".join([text, *blobs]), len(text) if blobs else None


def parameters_of(data: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """The object `parameters` of a part of the request. Raises Refusal (400)."""
    found = data.get("parameters", {})
    if not isinstance(found, dict):
        raise bad(f"'parameters' of {where} is no object.")
    check_parameters(found, where)
    return found


def check_parameters(names: Mapping[str, Any], where: str) -> None:
    """Raise Refusal (400) for parameters of extensions that the service does not have."""
    for name in _UNSUPPORTED:
        if name in names:
            raise bad(f"{where} has the parameter {name!r}, which this service does not support. Leave it out.")


def timeout_of(parameters: Mapping[str, Any]) -> float | None:
    """The parameter ``timeout``, microseconds as in Triton, in seconds; None if missing. Raises Refusal (400)."""
    value = parameters.get("timeout")
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise bad(f"the parameter 'timeout' is {shown(value)}; expected a whole number of microseconds, at least 1.")
    return min(value, 1 << 50) / 1e6


def _json(text: bytes) -> dict[str, Any]:
    try:
        data = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise bad(
            "the request is not JSON in UTF-8. Expected an object with 'inputs'; with binary tensors, the header "
            "Inference-Header-Content-Length too."
        ) from None
    if not isinstance(data, dict):
        raise bad("the request is JSON, but no object; expected an object with 'inputs'.")
    return data


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _objects(data: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    found = data.get(key)
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise bad(f"{key!r} is missing or no list of objects.")
    return found


def _text(entry: Mapping[str, Any], key: str, where: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str):
        raise bad(f"{key!r} of {where} is missing or no text.")
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, as "\\ud800"
        raise bad(f"{key!r} of {where} is no valid Unicode.") from None
    return value


def _flag(parameters: Mapping[str, Any], key: str, *, default: bool) -> bool:
    value = parameters.get(key, default)
    if not isinstance(value, bool):
        raise bad(f"the parameter {key!r} is {shown(value)}; expected true or false.")
    return value


def _tensor(entry: Mapping[str, Any], body: memoryview, at: int, *, binary: bool) -> tuple[InputTensor, int]:
    """The input, and the position after its binary data. binary: whether the body may have any."""
    name, datatype = _text(entry, "name", "an input"), _text(entry, "datatype", "an input")
    shape = entry.get("shape")
    if not isinstance(shape, list) or not set(map(type, shape)) <= {int} or len(shape) > 8:
        raise bad(f"'shape' of input {shown(name)} is missing or no list of integers.")
    if any(abs(size) >= 1 << 40 for size in shape):
        raise bad(f"'shape' of input {shown(name)} has a size of 2**40 or more.")
    size = parameters_of(entry, f"input {shown(name)}").get("binary_data_size")
    if size is None:
        data = entry.get("data")
        if not isinstance(data, list):
            raise bad(f"input {shown(name)} has neither a list 'data' nor the parameter 'binary_data_size'.")
        return InputTensor(name, datatype, shape, elements=data), at
    if "data" in entry:
        raise bad(f"input {shown(name)} has both 'data' and the parameter 'binary_data_size'; expected one.")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise bad(f"'binary_data_size' of input {shown(name)} is {shown(size)}; expected a number of bytes.")
    if not binary:
        raise bad("a request with 'binary_data_size' needs the header Inference-Header-Content-Length.")
    if at + size > len(body):
        raise bad(f"'binary_data_size' of input {shown(name)} is {size}; {len(body) - at} bytes are left in the body.")
    return InputTensor(name, datatype, shape, raw=body[at : at + size]), at + size
