"""int8: one Q/DQ graph with zero points of 0, with float kept where it must be.

Weights are int8 per output channel; activations are uint8 where they are never negative and int8 elsewhere, or int8
everywhere for TensorRT; biases are float: TensorRT refuses the int32 biases that ONNX Runtime's quantiser writes by
default. Calibrated on the run's own training slices.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from stageproof.export.quantization.accuracy_control import holding
from stageproof.export.quantization.equalization import equalised
from stageproof.export.quantization.head_correction import FITTING_IMAGES
from stageproof.export.quantization.inputs import Inputs, few
from stageproof.export.quantization.qdq_edit import (
    WEIGHTED,
    with_float_additions,
    with_relus_rounded_once,
    with_unsigned_activations,
)

if TYPE_CHECKING:
    from onnx import ModelProto


def quantized(inputs: Inputs) -> tuple[ModelProto, dict[str, Any]]:
    """The int8 graph that is expected to pass the gate, and what it was chosen on, as `holding` has them."""
    original, signed = insert_qdq(inputs)
    full = with_unsigned_activations(signed)
    return holding(inputs, [full, with_float_additions(full)], original, "int8")


def insert_qdq(inputs: Inputs) -> tuple[ModelProto, ModelProto]:
    """The float graph with its channels equalised, and the same with every convolution in int8, activations too.

    What follows the last convolution, its addition and ReLU included, stays float: the head sees every rounding there.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.calibrate import CalibrationDataReader

    images = inputs.calibration.images
    inputs.say(f"calibrating 8 bits on {len(images)} training slices")

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._batches: Iterator[np.ndarray] = iter(np.array_split(images, -(-len(images) // 16)))

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self._batches, None)
            return None if batch is None else {"images": np.ascontiguousarray(batch)}

    source, path = inputs.work / "equalised.onnx", inputs.work / "full.int8.onnx"
    original = equalised(inputs.float_graph, few(inputs.calibration, FITTING_IMAGES)[0], inputs.threads)
    source.write_bytes(original.SerializeToString())
    quantize_static(
        str(source),
        str(path),
        Reader(),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["Conv", "Relu", "Add", "MaxPool"],
        nodes_to_exclude=_behind_convolutions(original),
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.MinMax,
        extra_options={
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "QuantizeBias": False,
        },
    )
    model = with_relus_rounded_once(onnx.load(path))
    for file in (source, path):
        file.unlink()
    return original, model


def _behind_convolutions(model: ModelProto) -> list[str]:
    """Names of the nodes whose results reach no convolution."""
    needed: set[str] = set()
    behind = []
    for node in reversed(model.graph.node):
        if node.op_type == "Conv" or needed.intersection(node.output):
            needed.update(node.input)
        elif node.op_type not in WEIGHTED:
            behind.append(node.name)
    return behind
