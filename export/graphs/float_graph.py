"""Converts the reference to an ONNX graph in fp32, fp16 or bf16, from which all other graphs are derived."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, Any

from stageproof.runtime.errors import ExportError

if TYPE_CHECKING:
    from onnx import ModelProto

    from stageproof.export.reference.model import Reference

OPSET = 18
"""Supported by ONNX Runtime ≥ 1.14, OpenVINO ≥ 2023 and TensorRT ≥ 8.6; the default of PyTorch's exporter."""
BF16_OPSET = 22
"""The first opset whose Conv supports bfloat16."""


def exported(reference: Reference, precision: str) -> ModelProto:
    """The reference as converted by torch.onnx.export, computing in `precision`, with float32 input and output.

    precision: fp32, fp16 or bf16. Raises ExportError if the conversion fails.
    """
    import onnx
    import torch

    from stageproof.export.graphs.half_precision import lowered

    if reference.graph is not None:
        return graph_of_file(reference)
    # A batch of two: with a batch of one, torch.export may specialise the axis to a constant.
    example = torch.zeros(2, *reference.info.input.shape)
    try:
        program = torch.onnx.export(
            lowered(reference.model, precision),
            (example,),
            dynamo=True,
            opset_version=BF16_OPSET if precision == "bf16" else OPSET,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            external_data=False,
            verbose=False,
        )
    except Exception as error:  # the exporter raises exceptions of any type
        raise ExportError(f"torch.onnx.export of {reference.info.architecture} failed: {error}") from error
    assert program is not None, "dynamo=True always returns a program"
    model: ModelProto = program.model_proto
    _remove_stack_traces(model)
    onnx.checker.check_model(model, full_check=True)
    return model


def graph_of_file(reference: Reference) -> ModelProto:
    """The float32 graph of a reference that is an ONNX or TorchScript file. Raises ExportError if it has none."""
    import onnx

    from stageproof.export.reference.onnx_file import OnnxFile

    try:
        found = reference.model
        model: ModelProto = found.graph() if isinstance(found, OnnxFile) else _of_torchscript(reference)
    except Exception as error:  # the converters raise exceptions of any type
        raise ExportError(f"{reference.graph} cannot be converted to ONNX: {str(error).strip()[:400]}") from error
    _remove_stack_traces(model)
    onnx.checker.check_model(model, full_check=True)
    return model


def _of_torchscript(reference: Reference) -> ModelProto:
    """The graph from torch's older exporter, the only one that converts TorchScript."""
    import onnx
    import torch

    buffer: Any = io.BytesIO()
    example = torch.zeros(2, *reference.info.input.shape)
    axes = {"images": {0: "batch"}, "logits": {0: "batch"}}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of its deprecation, and of what it folds
        torch.onnx.export(
            reference.model,
            (example,),
            buffer,
            dynamo=False,
            opset_version=OPSET,
            input_names=["images"],
            output_names=["logits"],
            dynamic_axes=axes,
        )
    model: ModelProto = onnx.load_from_string(buffer.getvalue())
    return model


def _remove_stack_traces(model: Any) -> None:
    """Remove the exporter's stack traces in place: they contain paths of the exporting machine."""
    graph = model.graph
    for holder in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del holder.metadata_props[:]
        holder.doc_string = ""
