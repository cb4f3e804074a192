"""ONNX, with a dynamic batch, the labels and the input's meaning inside."""

from __future__ import annotations

import json
from pathlib import Path

from export.reference import Reference
from runtime.errors import ExportError
from runtime.manifest import METADATA_KEY

NAME = "onnx"
PRECISIONS = ("fp32",)
FILE = "model.onnx"
OPSET = 18
"""Understood by ONNX Runtime ≥ 1.14, OpenVINO ≥ 2023 and TensorRT ≥ 8.6, and torch's exporter's own."""


def build(reference: Reference, path: Path) -> None:
    """Write the reference as one `.onnx` file. Raises ExportError when the exporter fails or freezes the batch."""
    import onnx
    import torch

    spec = reference.info.input
    # A batch of two: with one, torch.export may take the axis for a constant.
    example = torch.zeros(2, spec.channels, spec.height, spec.width)
    try:
        program = torch.onnx.export(
            reference.model,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            external_data=False,
            verbose=False,
        )
    except Exception as error:  # the exporter passes on any failure of any layer beneath it
        raise ExportError(f"torch.onnx.export of {reference.info.architecture} failed: {error}") from error
    assert program is not None, "dynamo=True always returns a program"
    model = program.model_proto
    _forget_the_machine(model)
    entry = model.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, json.dumps(reference.info.to_dict())
    onnx.checker.check_model(model)
    onnx.save(model, path)
    assert_dynamic_batch(path)


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


def _forget_the_machine(model: object) -> None:
    """Drop the exporter's stack traces: they hold the paths of the machine that exported."""
    graph = model.graph  # type: ignore[attr-defined]
    for holder in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del holder.metadata_props[:]
        holder.doc_string = ""
