"""Messages of the service GRPCInferenceService, built from the published schema (open_inference_grpc.proto).

They are in a descriptor pool of their own: in the default pool, a client library in the same process that brings its
own copy of the schema, such as tritonclient, would fail to import.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "inference"
SERVICE = f"{PACKAGE}.GRPCInferenceService"

_SCHEMA = """
ServerLiveRequest
ServerLiveResponse: live=1 bool
ServerReadyRequest
ServerReadyResponse: ready=1 bool
ModelReadyRequest: name=1 string, version=2 string
ModelReadyResponse: ready=1 bool
ServerMetadataRequest
ServerMetadataResponse: name=1 string, version=2 string, extensions=3 string*
ModelMetadataRequest: name=1 string, version=2 string
ModelMetadataResponse: name=1 string, versions=2 string*, platform=3 string,\
 inputs=4 ModelMetadataResponse.TensorMetadata*, outputs=5 ModelMetadataResponse.TensorMetadata*,\
 properties=6 map string
ModelMetadataResponse.TensorMetadata: name=1 string, datatype=2 string, shape=3 int64*
ModelInferRequest: model_name=1 string, model_version=2 string, id=3 string, parameters=4 map InferParameter,\
 inputs=5 ModelInferRequest.InferInputTensor*, outputs=6 ModelInferRequest.InferRequestedOutputTensor*,\
 raw_input_contents=7 bytes*
ModelInferRequest.InferInputTensor: name=1 string, datatype=2 string, shape=3 int64*,\
 parameters=4 map InferParameter, contents=5 InferTensorContents
ModelInferRequest.InferRequestedOutputTensor: name=1 string, parameters=2 map InferParameter
ModelInferResponse: model_name=1 string, model_version=2 string, id=3 string, parameters=4 map InferParameter,\
 outputs=5 ModelInferResponse.InferOutputTensor*, raw_output_contents=6 bytes*
ModelInferResponse.InferOutputTensor: name=1 string, datatype=2 string, shape=3 int64*,\
 parameters=4 map InferParameter, contents=5 InferTensorContents
InferParameter: bool_param=1 bool|, int64_param=2 int64|, string_param=3 string|, double_param=4 double|,\
 uint64_param=5 uint64|
InferTensorContents: bool_contents=1 bool*, int_contents=2 int32*, int64_contents=3 int64*, uint_contents=4 uint32*,\
 uint64_contents=5 uint64*, fp32_contents=6 float*, fp64_contents=7 double*, bytes_contents=8 bytes*
"""
"""A message a line: its fields as NAME=NUMBER TYPE. `*`: repeated; `map TYPE`: from string; `|`: of the oneof.

`version` and `model_version` are optional in the schema; on the wire, an empty text is the same as none.
"""

_FIELD = descriptor_pb2.FieldDescriptorProto
_ONEOF = "parameter_choice"


def _pool() -> descriptor_pool.DescriptorPool:
    file = descriptor_pb2.FileDescriptorProto(name="stageproof_inference.proto", package=PACKAGE, syntax="proto3")
    found: dict[str, descriptor_pb2.DescriptorProto] = {}
    for line in _SCHEMA.strip().splitlines():
        name, _, fields = line.partition(":")
        outer, _, inner = name.rpartition(".")
        message = found[outer].nested_type.add(name=inner) if outer else file.message_type.add(name=inner)
        found[name] = message
        for field in fields.split(",") if fields else ():
            _add(message, name, *field.strip().split(" ", 1))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool


def _add(message: descriptor_pb2.DescriptorProto, path: str, name: str, kind: str) -> None:
    name, _, number = name.partition("=")
    field = message.field.add(name=name, number=int(number), label=_FIELD.LABEL_OPTIONAL)
    if kind.startswith("map "):
        entry = message.nested_type.add(name=f"{name.title()}Entry")
        entry.options.map_entry = True
        for at, (key, of) in enumerate((("key", "string"), ("value", kind[4:])), 1):
            _set_type(entry.field.add(name=key, number=at, label=_FIELD.LABEL_OPTIONAL), of)
        field.label = _FIELD.LABEL_REPEATED
        _set_type(field, f"{path}.{entry.name}")
        return
    if kind.endswith("*"):
        field.label = _FIELD.LABEL_REPEATED
    if kind.endswith("|"):
        if not message.oneof_decl:
            message.oneof_decl.add(name=_ONEOF)
        field.oneof_index = 0
    _set_type(field, kind.rstrip("*|"))


def _set_type(field: descriptor_pb2.FieldDescriptorProto, kind: str) -> None:
    if kind[0].isupper():
        field.type, field.type_name = _FIELD.TYPE_MESSAGE, f".{PACKAGE}.{kind}"
    else:
        field.type = _FIELD.Type.Value(f"TYPE_{kind.upper()}")


POOL = _pool()


def message(name: str) -> Any:
    """The class of the message of this name, such as ``ModelInferRequest``."""
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(f"{PACKAGE}.{name}"))


METHODS = ("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer")
"""The service's methods; each takes NAMERequest and returns NAMEResponse."""
