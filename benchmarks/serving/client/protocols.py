"""How an image is sent to each server and what comes back: one `Protocol` for each form of request."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Answer = tuple[str, tuple[float, ...]]
"""(label, probabilities in the order of the model's labels)."""
_JSON = {"Content-Type": "application/json"}
_BYTES = {"Content-Type": "application/octet-stream"}
_HEADER_LENGTH = "Inference-Header-Content-Length"


@dataclass(frozen=True)
class Request:
    """A request that is ready to send, so that the load generator does no more than that."""

    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Protocol:
    """encode: image bytes → Request. decode: (headers, body) → Answer; raises ValueError, KeyError or the like for a
    response that is none."""

    ready: str
    """Path that answers 200 when the server can predict."""
    encode: Callable[[bytes], Request]
    decode: Callable[[Mapping[str, str], bytes], Answer]


def _answer(entry: Mapping[str, Any]) -> Answer:
    return str(entry["label"]), tuple(map(float, entry["probabilities"]))


def _one(_: Mapping[str, str], body: bytes) -> Answer:
    return _answer(json.loads(body))


def _first(_: Mapping[str, str], body: bytes) -> Answer:
    (entry,) = json.loads(body)
    return _answer(entry)


def raw(ready: str) -> Protocol:
    """POST / with the bytes of the image → {"label", "probabilities"}."""
    return Protocol(ready, lambda image: Request("/", _BYTES, image), _one)


def base64_json(ready: str) -> Protocol:
    """POST /predict with {"image": Base64} → {"label", "probabilities"}."""
    return Protocol(ready, lambda image: _posted({"image": _text(image)}), _one)


def base64_list(ready: str) -> Protocol:
    """POST /predict with {"images": [Base64]} → [{"label", "probabilities"}]."""
    return Protocol(ready, lambda image: _posted({"images": [_text(image)]}), _first)


def open_inference(model: str, *, batch_of_vectors: bool = False) -> Protocol:
    """Open Inference Protocol with the binary tensor extension: `image`, BYTES [1].

    batch_of_vectors: the shape is [1, 1], as Triton batches tensors of shape [1].
    """
    shape = [1, 1] if batch_of_vectors else [1]

    def encode(image: bytes) -> Request:
        tensor = struct.pack("<I", len(image)) + image
        parameters = {"binary_data_size": len(tensor)}
        document = {"inputs": [{"name": "image", "shape": shape, "datatype": "BYTES", "parameters": parameters}]}
        document["outputs"] = [{"name": name, "parameters": {"binary_data": True}} for name in _OUTPUTS]
        header = json.dumps(document).encode()
        return Request(_infer(model), {**_BYTES, _HEADER_LENGTH: str(len(header))}, header + tensor)

    return Protocol(f"/v2/models/{model}/ready", encode, _tensors)


def open_inference_json(model: str) -> Protocol:
    """Open Inference Protocol in JSON: `image`, BYTES [1] in Base64, as MLServer decodes it."""

    def encode(image: bytes) -> Request:
        entry = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [_text(image)]}
        document = {"inputs": [{**entry, "parameters": {"content_type": "base64"}}]}
        return Request(_infer(model), _JSON, json.dumps(document).encode())

    return Protocol(f"/v2/models/{model}/ready", encode, _tensors)


_OUTPUTS = ("label", "probabilities")


def _tensors(headers: Mapping[str, str], body: bytes) -> Answer:
    length = int(headers.get(_HEADER_LENGTH, len(body)))
    document, left = json.loads(body[:length]), body[length:]
    found: dict[str, Any] = {}
    for output in document["outputs"]:
        size = (output.get("parameters") or {}).get("binary_data_size")
        if size is None:
            found[output["name"]] = output["data"]
            continue
        part, left = left[:size], left[size:]
        text = output["datatype"] == "BYTES"
        found[output["name"]] = _texts(part) if text else struct.unpack(f"<{size // 4}f", part)
    (label,) = found["label"]
    return str(label), tuple(map(float, found["probabilities"]))


def _texts(tensor: bytes) -> list[str]:
    texts, position = [], 0
    while position < len(tensor):
        (length,) = struct.unpack_from("<I", tensor, position)
        texts.append(tensor[position + 4 : position + 4 + length].decode())
        position += 4 + length
    return texts


def _infer(model: str) -> str:
    return f"/v2/models/{model}/infer"


def _posted(document: Any) -> Request:
    return Request("/predict", _JSON, json.dumps(document).encode())


def _text(image: bytes) -> str:
    return base64.b64encode(image).decode()
