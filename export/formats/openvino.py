"""OpenVINO IR: a `.xml` graph with its weights in a `.bin` file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stageproof.export.formats.built import Built, Found
from stageproof.export.formats.graph_store import graph, graph_of_pixels
from stageproof.export.preprocessing import TAKES
from stageproof.runtime.bundle.manifest import METADATA_KEY, TENSOR
from stageproof.runtime.errors import ExportError
from stageproof.runtime.serialization.digests import sha256_file
from stageproof.runtime.system.offline_import import import_without

if TYPE_CHECKING:
    from stageproof.export.reference.context import Job

NAME = "openvino"
PRECISIONS = ("fp32", "fp16", "int8")
SUFFIX = ".xml"
REQUIRES = {"openvino": "openvino", "onnx": "export", "onnxscript": "export"}
NEEDS_GPU = False
PIXELS = True

_WEIGHTED = ("Convolution", "MatMul", "GroupConvolution")
_FROM_STORED = ("Convert", "FakeQuantize", "Multiply", "Subtract", "Reshape", "Transpose")
"""Operations that may be between a stored weight and the operation that uses it."""


def build(job: Job, precision: str, path: Path, pixels: bool = False) -> Built:
    """The result of converting the ONNX graph to `.xml` and `.bin`. fp16 stores half-precision weights; OpenVINO
    chooses the type that the CPU computes in.

    Raises ExportError if OpenVINO cannot convert it, or if the written weights differ from those in memory.
    """
    openvino = import_without("openvino", "openvino_telemetry")

    stored = (graph_of_pixels if pixels else graph)(job, "fp32" if precision == "fp16" else precision)
    source = stored.path
    try:
        model = openvino.Core().read_model(source)
        # fp16 is converted from the fp32 graph, whose metadata states another precision.
        model.set_rt_info(json.dumps(job.description(precision, pixels)), ["framework", METADATA_KEY])
        _store_axes(openvino, model)
        openvino.save_model(model, path, compress_to_fp16=precision == "fp16")
        written = openvino.Core().read_model(path)
    except RuntimeError as error:
        raise ExportError(f"openvino cannot convert {source.name}: {error}") from error
    if precision != "fp16" and not np.array_equal(_weights(model), _weights(written)):
        raise ExportError(f"{path.name} differs from the weights in memory. Check the disk, and export again.")
    sidecar = path.with_suffix(".bin")
    files = {file.name: sha256_file(file) for file in (path, sidecar)}
    return Built(files, takes=TAKES if pixels else TENSOR, quantisation=stored.quantisation)


def _store_axes(openvino: Any, model: Any) -> None:
    """Replace each Range of three constants, as the axes of a normalisation, by its values, in place: the runtime
    refuses Range, which makes large tensors from small ones."""
    for operation in model.get_ordered_ops():
        limits = [source.get_node() for source in operation.input_values()]
        if operation.get_type_name() == "Range" and all(one.get_type_name() == "Constant" for one in limits):
            values = np.arange(*(int(one.get_data()) for one in limits))
            stored = openvino.opset13.constant(values, operation.get_output_element_type(0))
            operation.output(0).replace(stored.output(0))


def inspect(path: Path) -> Found:
    """The stored weight type of each convolution and matrix product in the file."""
    openvino = import_without("openvino", "openvino_telemetry")

    model = openvino.Core().read_model(path)
    types = [_stored(op) for op in model.get_ops() if op.get_type_name() in _WEIGHTED]
    return Found.count([found for found in types if found])


def _stored(op: Any) -> str | None:
    """The type of the constant that the operation's second input comes from; int8 also if a FakeQuantize is in between.

    None if that input is not a constant, as for the matrix products that resize an image: they have no weights.
    """
    source = op.input_value(1).get_node()
    quantised = False
    while source.get_type_name() in _FROM_STORED:
        quantised = quantised or source.get_type_name() == "FakeQuantize"
        source = source.input_value(0).get_node()
    if source.get_type_name() != "Constant":
        return None
    kind = source.get_element_type().get_type_name()
    names = {"f32": "fp32", "f16": "fp16", "bf16": "bf16", "i8": "int8", "u8": "int8"}
    return "int8" if quantised else names.get(kind, "other")


def _weights(model: Any) -> np.ndarray:
    """(N, 3) float64: size, sum and sum of absolute values of every constant with more than 64 values, sorted."""
    constants = [op.get_data() for op in model.get_ops() if op.get_type_name() == "Constant"]
    large = [data.astype(np.float64) for data in constants if data.size > 64 and data.dtype.kind in "fi"]
    rows = [(data.size, float(data.sum()), float(np.abs(data).sum())) for data in large]
    return np.array(sorted(rows)).reshape(-1, 3)
