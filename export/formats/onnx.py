"""ONNX, with a dynamic batch, the labels and the input's meaning inside."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.equalise import KEY
from export.files import write
from export.formats.built import Built
from export.pixels import TAKES
from export.pixels.onnx import PREFIX, with_pixels
from export.precision import Found
from runtime.errors import ExportError, ParityError
from runtime.manifest import METADATA_KEY, TENSOR

if TYPE_CHECKING:
    from onnx import ModelProto

    from export.job import Job

NAME = "onnx"
PRECISIONS = ("fp32", "fp16", "bf16", "int8")
SUFFIX = ".onnx"
REQUIRES = {"onnx": "export", "onnxscript": "export"}
NEEDS_GPU = False
PIXELS = True

OPSET = 18
"""Understood by ONNX Runtime ≥ 1.14, OpenVINO ≥ 2023 and TensorRT ≥ 8.6, and torch's exporter's own."""
BF16_OPSET = 22
"""The first whose convolutions take bfloat16."""

_WEIGHTED = ("Conv", "Gemm", "MatMul")


def build(job: Job, precision: str, path: Path, pixels: bool = False) -> Built:
    """Write the reference as one `.onnx` file. Raises ExportError when the exporter fails or freezes the batch."""
    source, digest = (graph_of_pixels if pixels else graph)(job, precision)
    shutil.copyfile(source, path)
    assert_dynamic_batch(path)
    return Built({path.name: digest}, takes=TAKES if pixels else TENSOR)


def graph(job: Job, precision: str) -> tuple[Path, str]:
    """The ONNX graph in `precision` and its SHA-256 in memory; built once an export, for every format made from it."""
    path = job.work / f"{precision}.onnx"
    note, refused = path.with_suffix(".sha256"), path.with_suffix(".refused")
    if refused.exists():
        raise ParityError(refused.read_text(encoding="utf-8"))
    if not note.exists():
        if precision in ("int8", "fp8"):
            from export.eight_bit_floats import float8
            from export.quantize import quantized

            try:
                model = quantized(job) if precision == "int8" else float8(job)
            except ParityError as error:  # minutes of search, whose end the other formats need not repeat
                refused.write_text(str(error), encoding="utf-8")
                raise
        else:
            model = exported(job, precision)
        describe(model, job.description(precision))
        note.write_text(write(path, model.SerializeToString()), encoding="ascii")
    return path, note.read_text(encoding="ascii")


def graph_of_pixels(job: Job, precision: str) -> tuple[Path, str]:
    """As `graph`, with the preprocessing in front and, where it is asked for, softmax behind."""
    import onnx

    source, _ = graph(job, precision)
    path = job.work / f"{precision}.pixels.onnx"
    note = path.with_suffix(".sha256")
    if not note.exists():
        info, softmax = job.reference.info, job.options.with_softmax
        model = with_pixels(onnx.load(source), info.input, info.temperature if softmax else None)
        describe(model, job.description(precision, pixels=True))
        note.write_text(write(path, model.SerializeToString()), encoding="ascii")
    return path, note.read_text(encoding="ascii")


def exported(job: Job, precision: str) -> ModelProto:
    """The reference through torch.onnx.export, computing in fp32, fp16 or bf16, with float32 at both ends."""
    import onnx
    import torch

    from export.lowered import lowered

    spec = job.reference.info.input
    # A batch of two: with one, torch.export may take the axis for a constant.
    example = torch.zeros(2, *spec.shape)
    try:
        program = torch.onnx.export(
            lowered(job.reference.model, precision),
            (example,),
            dynamo=True,
            opset_version=BF16_OPSET if precision == "bf16" else OPSET,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            external_data=False,
            verbose=False,
        )
    except Exception as error:  # the exporter passes on any failure of any layer beneath it
        raise ExportError(f"torch.onnx.export of {job.reference.info.architecture} failed: {error}") from error
    assert program is not None, "dynamo=True always returns a program"
    model: ModelProto = program.model_proto
    _forget_the_machine(model)
    onnx.checker.check_model(model, full_check=True)
    return model


def describe(model: ModelProto, description: dict[str, Any]) -> None:
    """Put `Job.description` into the model, in place of an earlier one, so that a lone file predicts."""
    kept = [entry for entry in model.metadata_props if entry.key == KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    entry = model.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, json.dumps(description)


def assert_dynamic_batch(path: Path) -> None:
    """Raise ExportError unless every input and output of the file leaves its first axis open."""
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    for value in (*graph.input, *graph.output):
        axis = value.type.tensor_type.shape.dim[0]
        if not axis.dim_param:
            raise ExportError(
                f"{path.name}: the batch axis of {value.name!r} is frozen at {axis.dim_value}, expected a dynamic one. "
                "Export with another torch version and report this."
            )


def inspect(path: Path) -> Found:
    """The type from which each convolution and matrix product of the file computes."""
    import onnx

    graph = onnx.load(path).graph
    weighted = [node for node in graph.node if node.op_type in _WEIGHTED and not node.name.startswith(PREFIX)]
    return Found.count([_computes_from(node, graph) for node in weighted])


def _computes_from(node: Any, graph: Any) -> str:
    """int8 where both operands come out of a DequantizeLinear, else the type of the stored weight."""
    import onnx

    producers = {output: other for other in graph.node for output in other.output}
    makers = [producers.get(name) for name in node.input[:2]]
    if all(maker is not None and maker.op_type == "DequantizeLinear" for maker in makers):
        return "int8"
    stored = {tensor.name: tensor.data_type for tensor in graph.initializer}
    name = node.input[1]
    while name not in stored and name in producers:
        name = producers[name].input[0]
    types = onnx.TensorProto
    names = {types.FLOAT: "fp32", types.FLOAT16: "fp16", types.BFLOAT16: "bf16", types.INT8: "int8 weights"}
    return names.get(stored.get(name, types.UNDEFINED), "other")


def _forget_the_machine(model: Any) -> None:
    """Drop the exporter's stack traces: they hold the paths of the machine that exported."""
    graph = model.graph
    for holder in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del holder.metadata_props[:]
        holder.doc_string = ""
