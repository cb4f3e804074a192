"""The Open Inference Protocol over HTTP: JSON and binary tensors, in and out, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from stageproof.runtime import read_image
from tests.serving.http_service.running import INFER, in_base64, in_binary, plain, prefixed

DIGEST = "ab" * 32


def rows(reply) -> list[dict]:
    """The outputs of a response, image by image."""
    assert reply.status == 200, reply.body
    outputs, at = {}, int(reply.headers.get("inference-header-content-length", len(reply.body)))
    data = json.loads(reply.body[:at])
    for entry in data["outputs"]:
        values = entry.get("data")
        if values is None:
            size = entry["parameters"]["binary_data_size"]
            blob, at = reply.body[at : at + size], at + size
            if entry["datatype"] == "FP32":
                values = np.frombuffer(blob, "<f4").tolist()
            else:
                values = []
                while blob:
                    end = 4 + int.from_bytes(blob[:4], "little")
                    values.append(blob[4:end].decode())
                    blob = blob[end:]
        assert len(values) == np.prod(entry["shape"])
        width = len(values) // entry["shape"][0]
        outputs[entry["name"]] = [values[row * width : (row + 1) * width] for row in range(entry["shape"][0])]
    assert at == len(reply.body)
    return [dict(zip(outputs, row, strict=True)) for row in zip(*outputs.values(), strict=True)]


def check(found: list[dict], expected: list[dict]) -> None:
    assert len(found) == len(expected)
    for got, want in zip(found, expected, strict=True):
        assert got["label"] == [want["label"] or ""]
        assert (got["status"], got["reason"]) == ([want["status"]], [want["reason"]])
        assert got["model_digest"] == [DIGEST]
        assert json.loads(got["guard"][0]) == want["guard"]
        probabilities = list(want["probabilities"].values()) or [0.0] * 4
        assert got["probabilities"] == pytest.approx(probabilities, abs=1e-5)


def test_json_gives_what_the_predictor_says(service, images, expected):
    reply = service.infer(in_base64(*images, id="one"))
    check(rows(reply), expected)
    assert {name: reply.json[name] for name in ("model_name", "model_version", "id")} == {
        "model_name": "stageproof",
        "model_version": "1",
        "id": "one",
    }
    assert {one["status"][0] for one in rows(reply)} >= {"ok", "rejected"}


def test_binary_tensors_give_the_same(service, images, expected):
    reply = service.infer(*in_binary(*images, parameters={"binary_data_output": True}))
    check(rows(reply), expected)
    assert reply.headers["content-type"] == "application/octet-stream"
    assert int(reply.headers["inference-header-content-length"]) < len(reply.body)
    outputs = [
        {"name": "probabilities", "parameters": {"binary_data": True}},
        {"name": "label"},
    ]
    one, two = (service.infer(*in_binary(*images, outputs=outputs)) for _ in range(2))
    data = json.loads(one.body[: int(one.headers["inference-header-content-length"])])
    assert [entry["name"] for entry in data["outputs"]] == ["probabilities", "label"]
    assert data["outputs"][0]["shape"] == [len(images), 4]
    assert data["outputs"][0]["parameters"] == {"binary_data_size": len(images) * 16}
    assert rows(one) == rows(two)


@pytest.mark.parametrize("how", ["flat", "nested", "binary", "colour"])
def test_pixels_are_those_of_the_array(service, predictor, images, how):
    picture = np.asarray(read_image(images[0]))
    stack = np.stack([picture, picture[::-1]])
    if how == "colour":
        stack = np.repeat(stack[..., None], 3, -1)
    entry = {"name": "pixels", "shape": [*stack.shape], "datatype": "UINT8"}
    if how in ("flat", "nested"):
        data = {"inputs": [{**entry, "data": (stack.reshape(-1) if how == "flat" else stack).tolist()}]}
        reply = service.infer(data)
    else:
        blob = stack.tobytes()
        reply = service.infer({"inputs": [{**entry, "parameters": {"binary_data_size": len(blob)}}]}, blob)
    check(rows(reply), [plain(predictor.predict(one)) for one in stack])


def test_metadata(service):
    assert service.get("/v2").json["extensions"] == ["binary_tensor_data"]
    model = service.get("/v2/models/stageproof").json
    assert model == service.get("/v2/models/stageproof/versions/1").json
    assert [entry["name"] for entry in model["inputs"]] == ["image", "pixels"]
    outputs = {entry["name"]: (entry["datatype"], entry["shape"]) for entry in model["outputs"]}
    assert outputs["probabilities"] == ("FP32", [-1, 4])
    assert {name for name, (kind, shape) in outputs.items() if (kind, shape) == ("BYTES", [-1])} == {
        *("label", "status", "reason", "guard", "model_digest")
    }
    assert json.loads(model["properties"]["labels"])[0] == "NonDemented"
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/stageproof/ready"):
        assert service.get(path).status == 200
    assert service.get("/v2/health/ready").json["model_digest"] == DIGEST


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/v2/models/other", "there is no model 'other'; this service has 'stageproof'"),
        ("/v2/models/stageproof/versions/2", "there is no version '2'"),
        ("/v2/models/stageproof/versions/2/ready", "there is no version '2'"),
        ("/v2/repository/index", "there is no such path"),
        ("/docs", "there is no such path"),
    ],
)
def test_unknown_paths_and_models(service, path, says):
    reply = service.get(path)
    assert reply.status == 404
    assert says in reply.error
    reply = service.infer(in_base64(b"x"), path="/v2/models/other/infer")
    assert (reply.status, "there is no model" in reply.error) == (404, True)


IMAGE = {"name": "image", "shape": [1], "datatype": "BYTES", "data": ["aGVsbG8="]}
PIXELS = {"name": "pixels", "shape": [1, 2, 2], "datatype": "UINT8", "data": [0, 1, 2, 255]}


def inputs(*entries: dict, **more) -> bytes:
    return json.dumps({"inputs": [*entries], **more}).encode()


REFUSED = {
    "nothing": (b"", "is not JSON"),
    "no object": (b"[]", "is JSON, but no object"),
    "not UTF-8": (b'{"inputs": "\xff"}', "is not JSON"),
    "NaN": (b'{"inputs": [NaN]}', "is not JSON"),
    "deep": (b"[" * 100_000, "is not JSON"),
    "no inputs": (b"{}", "'inputs' is missing or no list of objects"),
    "no input": (inputs(), "has 0 inputs; expected exactly one of 'image' and 'pixels'"),
    "two inputs": (inputs(IMAGE, PIXELS), "has 2 inputs"),
    "twice": (inputs(IMAGE, IMAGE), "has 2 inputs"),
    "unknown input": (inputs({**IMAGE, "name": "scan"}), "there is no input 'scan'"),
    "datatype": (inputs({**IMAGE, "datatype": "FP32"}), "has datatype 'FP32'; expected BYTES"),
    "datatype of pixels": (inputs({**PIXELS, "datatype": "INT8"}), "expected UINT8"),
    "shape": (inputs({**IMAGE, "shape": [1, 1]}), r"has shape [1, 1]; expected [N]"),
    "no shape": (inputs({key: value for key, value in IMAGE.items() if key != "shape"}), "'shape' of input"),
    "text as shape": (inputs({**IMAGE, "shape": ["1"]}), "'shape' of input"),
    "true as shape": (inputs({**IMAGE, "shape": [True]}), "'shape' of input"),
    "huge shape": (inputs({**PIXELS, "shape": [1, 1 << 60, 1 << 60]}), "a size of 2**40 or more"),
    "empty": (inputs({**IMAGE, "shape": [0], "data": []}), "each at least 1"),
    "negative": (inputs({**PIXELS, "shape": [1, -2, -2]}), "each at least 1"),
    "channels": (inputs({**PIXELS, "shape": [1, 1, 1, 4]}), "4 channels; expected 1 or 3"),
    "too many images": (inputs({**IMAGE, "shape": [41], "data": ["aGVsbG8="] * 41}), "41 images; expected at most 40"),
    "too few elements": (inputs({**IMAGE, "shape": [2]}), "has 1 elements; its shape says 2"),
    "not base64": (inputs({**IMAGE, "data": ["é!"]}), "element 0 of input 'image' is not base64"),
    "number": (inputs({**IMAGE, "data": [3]}), "element 0 of input 'image' is a number"),
    "too few pixels": (inputs({**PIXELS, "data": [1, 2]}), "has 2 elements where its shape says 4"),
    "ragged": (inputs({**PIXELS, "data": [[[1, 2], [3]]]}), "has 1 elements where its shape says 2"),
    "nested otherwise": (inputs({**PIXELS, "data": [[1, 2, 3, 4]]}), "has 4 elements where its shape says 2"),
    "flat in part": (inputs({**PIXELS, "data": [[1, 2]]}), "are not nested as its shape says"),
    "256": (inputs({**PIXELS, "data": [0, 0, 0, 256]}), "outside of 0 to 255"),
    "a float": (inputs({**PIXELS, "data": [0, 0, 0, 0.5]}), "an element that is no integer"),
    "true as a pixel": (inputs({**PIXELS, "data": [0, 0, 0, True]}), "an element that is no integer"),
    "no data": (inputs({**IMAGE, "data": None}), "has neither a list 'data' nor"),
    "size without header": (
        inputs({**IMAGE, "data": None, "parameters": {"binary_data_size": 3}} | {}),
        "has both 'data' and",
    ),
    "unknown output": (inputs(IMAGE, outputs=[{"name": "stage"}]), "there is no output 'stage'"),
    "output twice": (inputs(IMAGE, outputs=[{"name": "label"}] * 2), "an output is requested twice"),
    "output without name": (inputs(IMAGE, outputs=[{}]), "'name' of an output"),
    "id": (inputs(IMAGE, id=3), "'id' of the request"),
    "half a character": (b'{"id": "\\ud800", ' + inputs(IMAGE)[1:], "no valid Unicode"),
    "timeout": (inputs(IMAGE, parameters={"timeout": -1}), "'timeout' is -1"),
    "sequence": (inputs(IMAGE, parameters={"sequence_id": 1}), "'sequence_id', which this service does not support"),
    "classes": (inputs(IMAGE, outputs=[{"name": "label", "parameters": {"classification": 2}}]), "'classification'"),
    "flag": (inputs(IMAGE, parameters={"binary_data_output": 1}), "expected true or false"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_invalid_requests_are_400(service, case):
    body, says = REFUSED[case]
    reply = service.send("POST", INFER, body)
    assert reply.status == 400, reply.body
    assert says in reply.error


BLOB = prefixed(b"hello")
SIZED = {"name": "image", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(BLOB)}}


@pytest.mark.parametrize(
    ("entry", "blob", "header", "says"),
    [
        (SIZED, BLOB[:-1], None, "bytes are left in the body"),
        (SIZED, BLOB + b"x", None, "1 bytes after its tensors"),
        (SIZED, BLOB, "x", "expected a number of bytes"),
        (SIZED, BLOB, "-1", "expected a number of bytes"),
        (SIZED, BLOB, "999999", "Expected at most that"),
        (SIZED, BLOB, "7", "is not JSON"),
        ({**SIZED, "parameters": {"binary_data_size": -1}}, BLOB, None, "expected a number of bytes"),
        ({**SIZED, "parameters": {"binary_data_size": True}}, BLOB, None, "expected a number of bytes"),
        ({**SIZED, "shape": [2]}, BLOB, None, "ends before element 1 of 2"),
        (SIZED, b"\xff\xff\xff\xff" + BLOB[4:], None, "says that it has 4294967295 bytes"),
        (SIZED, prefixed(b"hell") + b"x", None, "has 1 bytes after its 1 elements"),
        ({**SIZED, "parameters": {}}, BLOB, None, "neither a list 'data' nor"),
        (
            {"name": "pixels", "shape": [1, 2, 2], "datatype": "UINT8", "parameters": {"binary_data_size": 9}},
            BLOB,
            None,
            "has 9 bytes; its shape [1, 2, 2] needs 4",
        ),
    ],
)
def test_invalid_binary_requests_are_400(service, entry, blob, header, says):
    text = inputs(entry)
    headers = {"Inference-Header-Content-Length": header or str(len(text))}
    reply = service.send("POST", INFER, text + blob, headers)
    assert reply.status == 400, reply.body
    assert says in reply.error


def test_a_size_needs_the_header(service):
    reply = service.send("POST", INFER, inputs(SIZED) + BLOB)
    assert reply.status == 400
    reply = service.send("POST", INFER, inputs(SIZED))
    assert (reply.status, "needs the header" in reply.error) == (400, True)


def test_a_deadline_that_passes_is_504(service, images):
    reply = service.infer(in_base64(*images, parameters={"timeout": 1}))
    assert (reply.status, "the deadline of the request passed" in reply.error) == (504, True)
    assert service.infer(in_base64(images[0], parameters={"timeout": 60_000_000})).status == 200


def test_openapi_describes_every_path_and_names_no_other_host(service):
    document = service.get("/openapi.json")
    paths = document.json["paths"]
    assert {"/predict", "/studies", "/metrics", "/v2/models/{model}/infer", "/v2/health/ready"} <= set(paths)
    assert "multipart/form-data" in paths["/predict"]["post"]["requestBody"]["content"]
    assert b"http://" not in document.body
    assert b"https://" not in document.body
