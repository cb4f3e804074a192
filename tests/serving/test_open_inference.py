"""The clients of Triton get the same from this service as from the real tritonserver that serves the same bundle.

`open_inference_clients` sends the requests, with the Python that `PYTHON` names; `triton_server` runs the oracle.
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from stageproof.export.triton.repository import write_repository
from stageproof.runtime import LABELS, Predictor
from stageproof.serving.http.protocol.tensors import OUTPUTS
from tests.serving import triton_server
from tests.serving.conftest import BUNDLE, ROOT
from tests.serving.http_service.running import mixed, plain
from tests.serving.http_service.running import running as running_service

pytestmark = pytest.mark.slow

PYTHON = "STAGEPROOF_CLIENT_PYTHON"
"""Environment variable: a Python with tritonclient[http,grpc]. Default: that of `triton_server`, else of the tests."""
CLIENTS = ("http", "http json", "grpc", "http aio", "grpc aio")
ANSWERED = ("images", "one image", "two outputs", "colour pixels", "grey pixels")
REFUSED = {
    "empty batch": 400,
    "no pixels": 400,
    "unknown input": 400,
    "wrong datatype of image": 400,
    "wrong datatype of pixels": 400,
    "wrong shape of image": 400,
    "wrong shape of pixels": 400,
    "two channels": 400,
    "too few bytes of image": 400,
    "too many bytes of image": 400,
    "too few bytes of pixels": 400,
    "too many bytes of pixels": 400,
    "unknown output": 400,
    "unknown model": 404,
    "unknown version": 404,
    "both inputs": 400,
    "no input": 400,
}
"""Case → status of HTTP, the same from both servers."""
GRPC = {400: "INVALID_ARGUMENT", 404: "NOT_FOUND"}
TAILS: dict[str, list[int]] = {"triton": [1], "ours": []}
"""Sizes after N in the shape of BYTES: where Triton batches, a tensor has a dimension beside that of the batch."""
IN_JSON = {"triton": "text", "ours": "base64"}
CRASHES = ["empty batch"]
"""The Python backend of tritonserver 2.51 ends with signal 11 for a tensor of BYTES without elements."""
FAIL_OTHERS = ["too few bytes of image", "too many bytes of image"]
"""tritonserver 2.51 finds these out in a batch, and fails every request of the batch: also valid ones of others."""
BROKEN_BY_TRITON = ("too few bytes of pixels", "too many bytes of pixels")
"""Of numbers in JSON that do not fit their shape Triton says 500, an error of its own."""


def client_python() -> str:
    python = os.environ.get(PYTHON) or os.environ.get(triton_server.PYTHON) or sys.executable
    if subprocess.run([python, "-c", "import tritonclient.http, tritonclient.grpc"], capture_output=True).returncode:
        pytest.skip(
            f"no clients of Triton: install tritonclient[http,grpc], or name a Python that has them in {PYTHON}"
        )
    return python


@pytest.fixture(scope="module")
def images() -> list[bytes]:
    """Good, rejected and broken ones, a DICOM file among them. Not the empty one: no server tells it from a missing one
    in JSON."""
    return [image for image in mixed(2) if image]


@pytest.fixture(scope="module", params=["triton", "ours"])
def server(request) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def found(server, images, tmp_path_factory) -> Iterator[dict[str, dict[str, Any]]]:
    """What the clients got from the server."""
    python, work = client_python(), tmp_path_factory.mktemp(server)
    given = {"model": "stageproof", "tail": TAILS[server], "json": IN_JSON[server], "skip": [], "alone": []}
    given["images"] = [base64.b64encode(image).decode() for image in images]
    if server == "triton":
        write_repository(BUNDLE, work / "repository")
        with triton_server.running(work / "repository", work) as one:
            yield ask(python, {**given, "http": one.http, "grpc": one.grpc, "skip": CRASHES, "alone": FAIL_OTHERS})
    else:
        with running_service(work, "--grpc-port", "0") as one:
            grpc = re.search(r"gRPC on (127.0.0.1:\d+)", one.log)[1]
            yield ask(python, {**given, "http": f"127.0.0.1:{one.port}", "grpc": grpc})


def ask(python: str, given: dict[str, Any]) -> dict[str, dict[str, Any]]:
    script = ROOT / "tests" / "serving" / "open_inference_clients.py"
    done = subprocess.run([python, str(script)], input=json.dumps(given), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    answer: dict[str, dict[str, Any]] = json.loads(done.stdout)
    assert set(answer) == set(CLIENTS)
    return answer


@pytest.fixture(scope="module")
def expected(images) -> list[dict[str, Any]]:
    """What the Predictor says of each image."""
    predictor = Predictor(BUNDLE, backend="onnx", threads=1)
    return [plain(one) for one in predictor.predict_batch(images)]


def check(outcome: dict[str, Any], expected: list[dict[str, Any]], tail: list[int]) -> None:
    """Datatypes, shapes and values of all outputs."""
    outputs, count = outcome["outputs"], len(expected)
    assert {name: one["datatype"] for name, one in outputs.items()} == OUTPUTS
    for name, one in outputs.items():
        assert one["shape"] == [count, *([4] if name == "probabilities" else tail)]
    assert outputs["status"]["values"] == [one["status"] for one in expected]
    assert outputs["label"]["values"] == [one["label"] or "" for one in expected]
    assert outputs["reason"]["values"] == [one["reason"] for one in expected]
    assert outputs["model_digest"]["values"] == [one["model_digest"] for one in expected]
    assert [json.loads(text).keys() for text in outputs["guard"]["values"]] == [one["guard"].keys() for one in expected]
    # In clinical order; a rejected image has zeros.
    rows = [[one["probabilities"].get(name, 0.0) for name in LABELS] for one in expected]
    assert outputs["probabilities"]["values"] == pytest.approx([value for row in rows for value in row], abs=2e-5)


@pytest.mark.parametrize("client", CLIENTS)
def test_answers_are_those_of_the_predictor(server, found, expected, client):
    outcome = found[client]["images"]
    assert (outcome["model_name"], outcome["model_version"], outcome["id"]) == ("stageproof", "1", "seven")
    if client == "http json" and server == "triton":
        # Triton takes text in JSON as the bytes themselves, so JSON cannot carry an encoded image.
        assert set(outcome["outputs"]["status"]["values"]) == {"rejected"}
        return
    assert {one["status"] for one in expected} == {"ok", "rejected"}
    check(outcome, expected, TAILS[server])
    check(found[client]["one image"], expected[:1], TAILS[server])
    assert set(found[client]["two outputs"]["outputs"]) == {"label", "probabilities"}
    pixels = [found[client][f"{kind} pixels"]["outputs"] for kind in ("colour", "grey")]
    assert [one["status"]["values"] for one in pixels] == [["rejected"] * 2] * 2


@pytest.mark.parametrize("client", ["http aio", "grpc aio"])
def test_every_one_of_many_concurrent_requests_gets_its_own_answer(server, found, expected, client):
    singles = found[client]["singles"]
    assert len(singles) == 16 * len(expected)
    for at, outcome in enumerate(singles):
        check(outcome, [expected[at % len(expected)]], TAILS[server])


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("client", CLIENTS)
def test_refusals_have_the_same_status(server, found, client, case):
    if server == "triton" and case in (*CRASHES, *(FAIL_OTHERS if client.endswith("aio") else ())):
        assert case not in found[client]
        return
    outcome = found[client][case]
    status = REFUSED[case]
    if client == "http json" and server == "triton" and case in BROKEN_BY_TRITON:
        status = 500
    assert outcome["error"] == (GRPC[status] if client.startswith("grpc") else str(status)), outcome
    assert len(outcome["message"]) > 20


@pytest.mark.parametrize("client", CLIENTS[:3])
def test_health_and_metadata(server, found, client):
    one = found[client]
    assert one["health"] == [True] * 3
    assert one["other model ready"] is False
    assert {"name", "version", "extensions"} <= set(one["server"])
    assert "binary_tensor_data" in one["server"]["extensions"]
    model, tail = one["model"], TAILS[server]
    assert (model["name"], model["versions"]) == ("stageproof", ["1"])
    shapes = {each["name"]: [int(size) for size in each["shape"]] for each in (*model["inputs"], *model["outputs"])}
    texts = {name: [-1, *tail] for name in ("image", *OUTPUTS)}
    assert shapes == {**texts, "probabilities": [-1, 4], "pixels": [-1] * 4}
    types = {each["name"]: each["datatype"] for each in (*model["inputs"], *model["outputs"])}
    assert types == {**OUTPUTS, "image": "BYTES", "pixels": "UINT8"}
