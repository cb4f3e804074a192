"""The reference as an ONNX graph in a floating-point type: what every graph of an export is made from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stageproof.runtime.errors import ExportError

if TYPE_CHECKING:
    from onnx import ModelProto

    from stageproof.export.reference.model import Reference

OPSET = 18
"""Understood by ONNX Runtime ≥ 1.14, OpenVINO ≥ 2023 and TensorRT ≥ 8.6, and torch's exporter's own."""
BF16_OPSET = 22
"""The first whose convolutions take bfloat16."""


def exported(reference: Reference, precision: str) -> ModelProto:
    """The reference through torch.onnx.export, computing in fp32, fp16 or bf16, with float32 at both ends."""
    import onnx
    import torch

    from stageproof.export.graphs.half_precision import lowered

    # A batch of two: with one, torch.export may take the axis for a constant.
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
    except Exception as error:  # the exporter passes on any failure of any layer beneath it
        raise ExportError(f"torch.onnx.export of {reference.info.architecture} failed: {error}") from error
    assert program is not None, "dynamo=True always returns a program"
    model: ModelProto = program.model_proto
    _forget_the_machine(model)
    onnx.checker.check_model(model, full_check=True)
    return model


def _forget_the_machine(model: Any) -> None:
    """Drop the exporter's stack traces: they hold the paths of the machine that exported."""
    graph = model.graph
    for holder in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del holder.metadata_props[:]
        holder.doc_string = ""
