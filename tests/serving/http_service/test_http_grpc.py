"""The Open Inference Protocol over gRPC: the same answers, from raw and from typed contents."""

from __future__ import annotations

import json
import subprocess
import sys

import grpc
import numpy as np
import pytest

from stageproof.serving.http.protocol import messages
from stageproof.serving.http.protocol.messages import METHODS, SERVICE, message
from tests.serving.http_service.running import prefixed
from tests.serving.http_service.test_http_protocol import check


@pytest.fixture(scope="module")
def call(service):
    """`call(method, request, **options)`: the response."""
    with grpc.insecure_channel(f"127.0.0.1:{service.grpc_port}") as channel:

        def call(name, request=None, **options):
            method = channel.unary_unary(
                f"/{SERVICE}/{name}",
                request_serializer=message(f"{name}Request").SerializeToString,
                response_deserializer=message(f"{name}Response").FromString,
            )
            return method(request or message(f"{name}Request")(), **{"timeout": 60, **options})

        yield call


def infer(images=(), *, raw=True, outputs=(), **more):
    request = message("ModelInferRequest")(model_name="stageproof", **more)
    tensor = request.inputs.add(name="image", datatype="BYTES", shape=[len(images)])
    if raw:
        request.raw_input_contents.append(prefixed(*images))
    else:
        tensor.contents.bytes_contents.extend(images)
    for name in outputs:
        request.outputs.add(name=name)
    return request


def rows(response):
    outputs = {}
    for tensor, blob in zip(response.outputs, response.raw_output_contents, strict=True):
        if tensor.datatype == "FP32":
            values = np.frombuffer(blob, "<f4").reshape(list(tensor.shape)).tolist()
        else:
            values = []
            while blob:
                end = 4 + int.from_bytes(blob[:4], "little")
                values.append([blob[4:end].decode()])
                blob = blob[end:]
        assert len(values) == tensor.shape[0]
        outputs[tensor.name] = values
    return [dict(zip(outputs, row, strict=True)) for row in zip(*outputs.values(), strict=True)]


@pytest.mark.parametrize("raw", [True, False])
def test_grpc_gives_what_the_predictor_says(call, images, expected, raw):
    response = call("ModelInfer", infer(images, raw=raw, id="x"))
    check(rows(response), expected)
    assert (response.model_name, response.model_version, response.id) == ("stageproof", "1", "x")
    assert len(response.parameters["bundle_digest"].string_param) == 64


def test_pixels_raw_and_typed_are_the_same(call):
    pixels = np.random.default_rng(1).integers(0, 256, (2, 20, 30), np.uint8)
    found = []
    for raw in (True, False):
        request = message("ModelInferRequest")(model_name="stageproof")
        tensor = request.inputs.add(name="pixels", datatype="UINT8", shape=pixels.shape)
        if raw:
            request.raw_input_contents.append(pixels.tobytes())
        else:
            tensor.contents.uint_contents.extend(pixels.reshape(-1).tolist())
        found.append(rows(call("ModelInfer", request)))
    assert found[0] == found[1]
    assert [one["status"] for one in found[0]] == [["rejected"]] * 2


def test_health_and_metadata(call, service):
    assert call("ServerLive").live
    assert call("ServerReady").ready
    assert call("ModelReady", message("ModelReadyRequest")(name="stageproof", version="1")).ready
    assert call("ServerMetadata").extensions == ["binary_tensor_data"]
    model = call("ModelMetadata", message("ModelMetadataRequest")(name="stageproof"))
    in_json = service.get("/v2/models/stageproof").json
    assert dict(model.properties) == in_json["properties"]
    for kind in ("inputs", "outputs"):
        found = [{"name": one.name, "datatype": one.datatype, "shape": list(one.shape)} for one in getattr(model, kind)]
        assert found == in_json[kind]


def refused(call, request, name="ModelInfer", **options):
    with pytest.raises(grpc.RpcError) as error:
        call(name, request, **options)
    return error.value.code().name, error.value.details()


def test_a_message_that_is_none_is_refused(service):
    with grpc.insecure_channel(f"127.0.0.1:{service.grpc_port}") as channel:
        for name in METHODS:
            with pytest.raises(grpc.RpcError) as error:
                channel.unary_unary(f"/{SERVICE}/{name}")(b"\xff\xff", timeout=60)
            assert error.value.code().name == "INVALID_ARGUMENT"
            assert f"the message is no {name}Request" in error.value.details()


def test_what_is_refused(call, images):
    one = images[:1]
    for unknown in ({"name": "other"}, {"name": "stageproof", "version": "2"}):
        assert not call("ModelReady", message("ModelReadyRequest")(**unknown)).ready, "as Triton answers"
    assert refused(call, infer(one, model_version="2"))[0] == "NOT_FOUND"
    cases = [
        (infer(one, outputs=["stage"]), "there is no output 'stage'"),
        (infer([]), "each at least 1"),
        (message("ModelInferRequest")(model_name="stageproof"), "has 0 inputs"),
    ]
    both = infer(one)
    both.inputs[0].contents.bytes_contents.append(one[0])
    cases.append((both, "has contents, and the request raw_input_contents"))
    two = infer(one)
    two.raw_input_contents.append(b"")
    cases.append((two, "raw_input_contents has 2 entries for 1 inputs"))
    several = infer(one)
    several.inputs.add(name="pixels", datatype="UINT8", shape=[1, 2, 2])
    cases += [(several, "has 2 inputs"), (infer(one, outputs=["label"] * 7), "names 7 outputs; there are 6")]
    other = infer(one, raw=False)
    other.inputs[0].contents.Clear()
    other.inputs[0].contents.int_contents.append(1)
    cases.append((other, "has int_contents; expected bytes_contents"))
    empty = infer(one, raw=False)
    empty.inputs[0].ClearField("contents")
    cases.append((empty, "has 0 elements; its shape says 1"))
    huge = infer(one)
    huge.inputs[0].shape[0] = (1 << 63) - 1
    cases.append((huge, "images; expected at most 40"))
    late = infer(one)
    late.parameters["timeout"].string_param = "soon"
    cases.append((late, "'timeout' is 'soon'"))
    for request, says in cases:
        code, details = refused(call, request)
        assert (code, says in details) == ("INVALID_ARGUMENT", True), details


def test_deadlines_and_sizes(call, images):
    late = infer(images)
    late.parameters["timeout"].int64_param = 1
    assert refused(call, late)[0] == "DEADLINE_EXCEEDED"
    assert refused(call, infer([bytes(3 << 20)]))[0] == "RESOURCE_EXHAUSTED"


PUBLISHED = """
import json
from google.protobuf import descriptor_pb2
from open_inference.grpc import protocol
file = descriptor_pb2.FileDescriptorProto()
protocol.DESCRIPTOR.CopyToProto(file)
print(json.dumps([file.SerializeToString().hex()]))
"""


def fields(pool_file):
    """message.field → (number, type, name of the type, repeated, in a oneof), without what is optional."""
    found = {}

    def walk(each, path):
        name = f"{path}.{each.name}"
        found[name] = each.options.map_entry
        for field in each.field:
            in_oneof = field.HasField("oneof_index") and not field.proto3_optional
            found[f"{name}.{field.name}"] = (field.number, field.type, field.type_name, field.label == 3, in_oneof)
        for nested in each.nested_type:
            walk(nested, name)

    for each in pool_file.message_type:
        walk(each, pool_file.package)
    return found


def test_the_messages_are_those_of_the_published_schema():
    """In a process of its own: the package puts the schema into the pool that all client libraries share."""
    from google.protobuf import descriptor_pb2

    done = subprocess.run([sys.executable, "-c", PUBLISHED], text=True, capture_output=True)
    if "ModuleNotFoundError" in done.stderr:
        pytest.skip("the published schema is not installed (open-inference-grpc)")
    published = descriptor_pb2.FileDescriptorProto.FromString(bytes.fromhex(json.loads(done.stdout)[0]))
    ours = descriptor_pb2.FileDescriptorProto()
    messages.POOL.FindFileByName("stageproof_inference.proto").CopyToProto(ours)
    assert fields(ours) == fields(published)
    (service,) = published.service
    assert {method.name for method in service.method} == set(METHODS)
    assert f"{published.package}.{service.name}" == SERVICE
