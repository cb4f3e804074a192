"""fp8: the int8 Q/DQ graph with E4M3 floats (Micikevicius et al. 2022) instead of integers, for TensorRT.

The step size of a float grows with its value: compared with int8, small values are more precise and large ones less,
which gives about three times the noise in these networks. Residual additions therefore stay in float32, which int8
quantises for speed. GPUs compute in E4M3 from compute capability 8.9; no CPU does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stageproof.export.quantization.accuracy_control import select_graph
from stageproof.export.quantization.inputs import Inputs
from stageproof.export.quantization.int8 import insert_qdq
from stageproof.export.quantization.qdq_edit import with_float_additions

if TYPE_CHECKING:
    from onnx import ModelProto

LARGEST = 448.0
"""Largest finite value of E4M3."""
OPSET = 19
"""The first opset whose QuantizeLinear supports E4M3."""


def float8(inputs: Inputs) -> tuple[ModelProto, dict[str, Any]]:
    """(graph, facts) as from `select_graph`: E4M3 convolutions, scaled per tensor (activations) and per channel
    (weights).

    Calibration and selection of float32 layers are the same as for int8. Raises ParityError if no graph is expected to
    pass.
    """
    original, rounded = insert_qdq(inputs)
    full = with_float_additions(rounded)
    _to_floats(full, original)
    return select_graph(inputs, [full], original, "fp8")


def _to_floats(model: ModelProto, original: ModelProto) -> None:
    """Convert every int8 quantiser of the graph to E4M3 with the same range, in place."""
    from onnx import TensorProto, helper, numpy_helper

    kind = helper.tensor_dtype_to_np_dtype(TensorProto.FLOAT8E4M3FN)
    graph = model.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    weights = {tensor.name: tensor for tensor in original.graph.initializer}
    quantisers = [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    for name in {name for node in quantisers for name in node.input[1:3]}:
        values = numpy_helper.to_array(stored[name])
        changed = values.astype(kind) if values.dtype == np.int8 else values * np.float32(127 / LARGEST)
        stored[name].CopyFrom(numpy_helper.from_array(changed, name))
    for node in quantisers:
        name = node.input[0]
        if name in stored:
            values = numpy_helper.to_array(weights[name.removesuffix("_quantized")])
            axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
            shape = [-1 if dimension == axis else 1 for dimension in range(values.ndim)]
            scale = numpy_helper.to_array(stored[node.input[1]]).reshape(shape)
            scaled = np.clip(values / scale, -LARGEST, LARGEST).astype(kind)
            stored[name].CopyFrom(numpy_helper.from_array(scaled, name))
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx"):
            entry.version = max(entry.version, OPSET)
