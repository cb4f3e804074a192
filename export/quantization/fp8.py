"""fp8: the Q/DQ graph of int8 with 8-bit floats (E4M3, Micikevicius et al. 2022) in place of integers, for TensorRT.

A float's steps widen with its size: layers keep more of their small values than in int8 and less of their large ones,
which has about three times the noise in these networks. So shortcuts stay float, which int8 rounds for its speed. GPUs
compute in 8-bit floats from compute capability 8.9 on; no CPU does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stageproof.export.quantization.accuracy_control import holding
from stageproof.export.quantization.inputs import Inputs
from stageproof.export.quantization.int8 import insert_qdq
from stageproof.export.quantization.qdq_edit import with_float_additions

if TYPE_CHECKING:
    from onnx import ModelProto

LARGEST = 448.0
"""Of E4M3."""
OPSET = 19
"""The first whose QuantizeLinear knows 8-bit floats."""


def float8(inputs: Inputs) -> tuple[ModelProto, dict[str, Any]]:
    """The reference with every convolution in E4M3, per tensor for activations and per channel for weights.

    Calibrated as int8 is, and with as many layers put back to float. Raises ParityError where that does not suffice.
    With it, JSON-ready, what it was calibrated and chosen on.
    """
    original, rounded = insert_qdq(inputs)
    full = with_float_additions(rounded)
    _to_floats(full, original)
    return holding(inputs, [full], original, "fp8")


def _to_floats(model: ModelProto, original: ModelProto) -> None:
    """Turn every quantiser of the int8 graph into one to E4M3 of the same range, in place."""
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
            scale = numpy_helper.to_array(stored[node.input[1]]).reshape(-1, *[1] * (values.ndim - 1))
            scaled = np.clip(values / scale, -LARGEST, LARGEST).astype(kind)
            stored[name].CopyFrom(numpy_helper.from_array(scaled, name))
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx"):
            entry.version = max(entry.version, OPSET)
