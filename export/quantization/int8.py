"""int8: a symmetric Q/DQ graph (zero points 0), with layers kept in float32 where necessary.

Weights are int8 per output channel; activations are uint8 if never negative, else int8 (always int8 for TensorRT);
biases stay float32, since TensorRT rejects the int32 biases that ONNX Runtime's quantiser writes by default. Calibrated
on the run's own training slices.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from stageproof.export.quantization.accuracy_control import select_graph
from stageproof.export.quantization.equalization import equalised
from stageproof.export.quantization.head_correction import FITTING_IMAGES
from stageproof.export.quantization.inputs import Inputs, few
from stageproof.export.quantization.layer_choice import choose_layers
from stageproof.export.quantization.qdq_edit import (
    has_float_additions,
    with_float_additions,
    with_relus_rounded_once,
    with_unsigned_activations,
)
from stageproof.runtime.system.offline_import import import_onnxruntime

if TYPE_CHECKING:
    from onnx import ModelProto


logger = logging.getLogger(__name__)


def quantized(inputs: Inputs) -> tuple[ModelProto, dict[str, Any]]:
    """(graph, facts) as from `select_graph`: the int8 graph that is expected to pass the gate."""
    original, signed = insert_qdq(inputs)
    full = with_unsigned_activations(signed)
    # Without quantised additions both graphs are the same.
    graphs = [full] if has_float_additions(full) else [full, with_float_additions(full)]
    return select_graph(inputs, graphs, original, "int8")


def insert_qdq(inputs: Inputs) -> tuple[ModelProto, ModelProto]:
    """(equalised float32 graph, the same with weights and activations of the layers of `choose_layers` in int8)."""
    import onnx

    import_onnxruntime()
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.calibrate import CalibrationDataReader

    images = inputs.calibration.images
    logger.info(f"calibrating 8-bit quantisation on {len(images)} training slices")

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._batches: Iterator[np.ndarray] = iter(np.array_split(images, -(-len(images) // 16)))

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self._batches, None)
            return None if batch is None else {"images": np.ascontiguousarray(batch)}

    source, path = inputs.work / "equalised.onnx", inputs.work / "full.int8.onnx"
    original = equalised(inputs.float_graph, few(inputs.calibration, FITTING_IMAGES)[0], inputs.threads)
    choice = choose_layers(original)
    if said := choice.sentence():
        logger.info(f"8-bit quantisation: {said}")
    source.write_bytes(original.SerializeToString())
    quantize_static(
        str(source),
        str(path),
        Reader(),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=list(choice.types),
        nodes_to_exclude=list(choice.excluded),
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
