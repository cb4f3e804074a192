"""ONNX, with a dynamic batch axis and metadata with labels and input specification."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stageproof.export.formats.built import Built, Found
from stageproof.export.formats.graph_store import graph, graph_of_pixels
from stageproof.export.preprocessing import TAKES
from stageproof.export.preprocessing.onnx import PREFIX
from stageproof.runtime.bundle.manifest import TENSOR
from stageproof.runtime.errors import ExportError

if TYPE_CHECKING:
    from stageproof.export.reference.context import Job

NAME = "onnx"
PRECISIONS = ("fp32", "fp16", "bf16", "int8")
SUFFIX = ".onnx"
REQUIRES = {"onnx": "export", "onnxscript": "export"}
NEEDS_GPU = False
PIXELS = True

_WEIGHTED = ("Conv", "Gemm", "MatMul")
_FROM_STORED = ("QuantizeLinear", "DequantizeLinear", "Cast", "Transpose", "Reshape", "Identity")


def build(job: Job, precision: str, path: Path, pixels: bool = False) -> Built:
    """The result of writing one `.onnx` file. Raises ExportError if the exporter fails or fixes the batch axis."""
    source = (graph_of_pixels if pixels else graph)(job, precision)
    shutil.copyfile(source.path, path)
    assert_dynamic_batch(path)
    return Built({path.name: source.digest}, takes=TAKES if pixels else TENSOR, quantisation=source.quantisation)


def assert_dynamic_batch(path: Path) -> None:
    """Raise ExportError unless the first axis of every input and output is dynamic."""
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    for value in (*graph.input, *graph.output):
        axis = value.type.tensor_type.shape.dim[0]
        if not axis.dim_param:
            raise ExportError(
                f"{path.name}: the batch axis of {value.name!r} is fixed at {axis.dim_value}, expected a dynamic axis. "
                "Export with another torch version and report this."
            )


def inspect(path: Path) -> Found:
    """The type of each convolution and matrix product in the file."""
    import onnx

    graph = onnx.load(path).graph
    weighted = [node for node in graph.node if node.op_type in _WEIGHTED and not node.name.startswith(PREFIX)]
    return Found.count([kind for node in weighted if (kind := _computes_from(node, graph))])


def _computes_from(node: Any, graph: Any) -> str | None:
    """int8 if both operands are outputs of DequantizeLinear, else the type of the stored weight; None for a product of
    two activations, as in attention, which has no weight."""
    import onnx

    producers = {output: other for other in graph.node for output in other.output}
    makers = [producers.get(name) for name in node.input[:2]]
    if all(maker is not None and maker.op_type == "DequantizeLinear" for maker in makers):
        return "int8"
    stored = {tensor.name: tensor.data_type for tensor in graph.initializer}
    name = node.input[1]
    while name not in stored and name in producers and producers[name].op_type in _FROM_STORED:
        name = producers[name].input[0]
    if node.op_type == "MatMul" and name not in stored:
        return None
    types = onnx.TensorProto
    names = {types.FLOAT: "fp32", types.FLOAT16: "fp16", types.BFLOAT16: "bf16", types.INT8: "int8 weights"}
    return names.get(stored.get(name, types.UNDEFINED), "other")
