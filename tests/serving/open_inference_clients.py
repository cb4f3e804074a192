"""The clients of Triton against a server of the Open Inference Protocol: what each gets for each request, as JSON.

A program of its own, since the clients pin other packages than the tests do.

Standard input: an object with ``http`` and ``grpc``, addresses; ``tail``, the sizes that the server has after N in the
shape of `image`; ``json``, how elements of BYTES travel in JSON (``base64`` or ``text``); ``images``, files in base64;
``model``, its name; ``skip``, cases to leave out; ``alone``, cases not to send while others wait.

Standard output: {client: {case: outcome}}, an outcome being {"outputs": {name: {"datatype", "shape", "values"}}, …} or
{"error", "message"}.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from typing import Any

import numpy as np
import tritonclient.grpc as grpc_client
import tritonclient.grpc.aio as grpc_aio
import tritonclient.http as http_client
import tritonclient.http.aio as http_aio
from tritonclient.utils import InferenceServerException, serialize_byte_tensor

GIVEN = json.load(sys.stdin)
IMAGES = [base64.b64decode(image) for image in GIVEN["images"]]
TAIL, MODEL = GIVEN["tail"], GIVEN["model"]
GREY = np.random.default_rng(1).integers(0, 256, (2, 20, 30, 1), np.uint8)
PIXELS = np.repeat(GREY, 3, 3)
CLIENTS = {"http": (http_client, True), "http json": (http_client, False), "grpc": (grpc_client, True)}


def image(*files: bytes) -> tuple[str, str, list[int], np.ndarray]:
    return "image", "BYTES", [len(files), *TAIL], np.array(files, object)


def pixels(values: np.ndarray) -> tuple[str, str, list[int], np.ndarray]:
    return "pixels", "UINT8", list(values.shape), values


CASES: dict[str, dict[str, Any]] = {
    "images": {"inputs": [image(*IMAGES)], "id": "seven"},
    "one image": {"inputs": [image(IMAGES[0])]},
    "two outputs": {"inputs": [image(IMAGES[0])], "outputs": ["probabilities", "label"]},
    "colour pixels": {"inputs": [pixels(PIXELS)]},
    "grey pixels": {"inputs": [pixels(GREY)]},
    "empty batch": {"inputs": [image()]},
    "no pixels": {"inputs": [pixels(PIXELS[:0])]},
    "unknown input": {"inputs": [("picture", *image(IMAGES[0])[1:])]},
    "wrong datatype of image": {"inputs": [("image", "INT32", [1, *TAIL], np.zeros(1, np.int32))]},
    "wrong datatype of pixels": {"inputs": [("pixels", "INT32", [1, 9, 9, 1], np.zeros((1, 9, 9, 1), np.int32))]},
    "wrong shape of image": {"inputs": [("image", "BYTES", [1, 1, 1, 1], np.array([IMAGES[0]], object))]},
    "wrong shape of pixels": {"inputs": [("pixels", "UINT8", [9], np.zeros(9, np.uint8))]},
    "two channels": {"inputs": [pixels(PIXELS[..., :2].copy())]},
    "too few bytes of image": {"inputs": [image(IMAGES[0])], "cut": -1},
    "too many bytes of image": {"inputs": [image(IMAGES[0])], "cut": 1},
    "too few bytes of pixels": {"inputs": [pixels(GREY)], "cut": -1},
    "too many bytes of pixels": {"inputs": [pixels(GREY)], "cut": 1},
    "unknown output": {"inputs": [image(IMAGES[0])], "outputs": ["stage"]},
    "unknown model": {"inputs": [image(IMAGES[0])], "model": "other"},
    "unknown version": {"inputs": [image(IMAGES[0])], "version": "7"},
    "both inputs": {"inputs": [image(IMAGES[0]), pixels(PIXELS[:1])]},
    "no input": {"inputs": []},
}
for skipped in GIVEN["skip"]:
    del CASES[skipped]


def tensors(module: Any, case: dict[str, Any], binary: bool) -> dict[str, Any]:
    """The arguments of `infer`. A case with `cut` has one byte or element more or less than its shape says."""
    inputs, is_http = [], module is http_client
    for name, datatype, shape, values in case["inputs"]:
        tensor = module.InferInput(name, shape, datatype)
        if datatype == "BYTES" and not binary:
            plain = [base64.b64encode(one) if GIVEN["json"] == "base64" else one for one in values.reshape(-1)]
            tensor._data = [one.decode("latin-1") for one in plain]
            tensor._parameters.pop("binary_data_size", None)
        elif is_http:
            tensor.set_data_from_numpy(values.reshape(shape), binary_data=binary)
        else:
            tensor.set_data_from_numpy(values.reshape(shape))
        if cut := case.get("cut"):
            change(tensor, values, cut, binary, is_http)
        inputs.append(tensor)
    names = case.get("outputs")
    wanted = [module.InferRequestedOutput(name, **({"binary_data": binary} if is_http else {})) for name in names or ()]
    if is_http and not binary and not names:
        wanted = [module.InferRequestedOutput(name, binary_data=False) for name in OUTPUTS]
    return {
        "model_name": case.get("model", MODEL),
        "model_version": case.get("version", ""),
        "inputs": inputs,
        "outputs": wanted or None,
        "request_id": case.get("id", ""),
    }


OUTPUTS = ("label", "probabilities", "status", "reason", "guard", "model_digest")


def change(tensor: Any, values: np.ndarray, cut: int, binary: bool, is_http: bool) -> None:
    if not binary:
        tensor._data = [*tensor._data, tensor._data[-1]] if cut > 0 else tensor._data[:-1]
        return
    whole = serialize_byte_tensor(values).item() if values.dtype == object else values.tobytes()
    blob = whole + b"\0" if cut > 0 else whole[:-1]
    if is_http:
        tensor._raw_data = blob
        tensor._parameters["binary_data_size"] = len(blob)
    else:
        tensor._raw_content = blob


def outcome(result: Any) -> dict[str, Any]:
    response = result.get_response()
    if not isinstance(response, dict):
        named = {"model_name": response.model_name, "model_version": response.model_version, "id": response.id}
        listed = {one.name: (one.datatype, list(one.shape)) for one in response.outputs}
    else:
        named = {"model_name": response["model_name"], "model_version": response["model_version"]}
        named["id"] = response.get("id", "")
        listed = {one["name"]: (one["datatype"], one["shape"]) for one in response["outputs"]}
    outputs = {}
    for name, (datatype, shape) in listed.items():
        values = result.as_numpy(name)
        assert list(values.shape) == list(shape)
        plain = [one.decode() if isinstance(one, bytes) else one for one in values.reshape(-1).tolist()]
        outputs[name] = {"datatype": datatype, "shape": shape, "values": plain}
    return {**named, "outputs": outputs}


def failure(error: InferenceServerException) -> dict[str, Any]:
    return {"error": str(error.status()).removeprefix("StatusCode."), "message": str(error.message())}


def sync(module: Any, binary: bool, address: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    client = module.InferenceServerClient(address)
    found["health"] = [client.is_server_live(), client.is_server_ready(), client.is_model_ready(MODEL)]
    try:
        found["other model ready"] = client.is_model_ready("other")
    except InferenceServerException as error:
        found["other model ready"] = failure(error)
    given = {} if module is http_client else {"as_json": True}
    found["server"], found["model"] = client.get_server_metadata(**given), client.get_model_metadata(MODEL, **given)
    for name, case in CASES.items():
        try:
            found[name] = outcome(client.infer(**tensors(module, case, binary)))
        except InferenceServerException as error:
            found[name] = failure(error)
    client.close()
    return found


async def concurrent(module: Any, base: Any, address: str) -> dict[str, Any]:
    """All cases, and each image sixteen times, 48 requests at any time."""
    client, places = module.InferenceServerClient(address), asyncio.Semaphore(48)

    async def one(case: dict[str, Any]) -> dict[str, Any]:
        async with places:
            try:
                return outcome(await client.infer(**tensors(base, case, True)))
            except InferenceServerException as error:
                return failure(error)

    singles = [{"inputs": [image(file)]} for file in IMAGES] * 16
    cases = {name: case for name, case in CASES.items() if name not in GIVEN["alone"]}
    answers = await asyncio.gather(*(one(case) for case in [*cases.values(), *singles]))
    await client.close()
    return {**dict(zip(cases, answers, strict=False)), "singles": answers[len(cases) :]}


def main() -> None:
    found = {name: sync(module, binary, GIVEN[name.split()[0]]) for name, (module, binary) in CLIENTS.items()}
    found["http aio"] = asyncio.run(concurrent(http_aio, http_client, GIVEN["http"]))
    found["grpc aio"] = asyncio.run(concurrent(grpc_aio, grpc_client, GIVEN["grpc"]))
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
