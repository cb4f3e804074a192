"""Corrects the systematic error of the quantised layers with a least-squares fit of the head, which is in float32."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np

from stageproof.export.quantization.onnx_runtime import run

if TYPE_CHECKING:
    from onnx import ModelProto

logger = logging.getLogger(__name__)

FITTING_IMAGES = 128
"""Number of training slices for the fit, and for the equalisation of channels."""


def fit_head(model: ModelProto, images: np.ndarray, logits: np.ndarray, threads: int, precision: str = "int8") -> None:
    """Fold a (classes, classes) least-squares map from the graph's logits to the reference's into the head, in place.

    images: (N, C, H, W) float32 training slices.
    logits: (N, classes) float32 of the reference.

    A graph that does not end in a fully connected layer, such as SqueezeNet's, is not corrected.
    """
    from onnx import numpy_helper

    last = next(node for node in model.graph.node if node.output[0] == model.graph.output[0].name)
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    if last.op_type != "Gemm" or last.input[1] not in stored:
        logger.info(f"{precision}: the network ends in {last.op_type}, so the head is not corrected")
        return
    if len(last.input) < 3:  # the exporter leaves out a bias of zeros
        stored["head_bias"] = model.graph.initializer.add()
        zeros = np.zeros(logits.shape[1], np.float32)
        stored["head_bias"].CopyFrom(numpy_helper.from_array(zeros, "head_bias"))
        last.input.append("head_bias")
    got = run(model, images, threads, precision)
    design = np.concatenate([got, np.ones((len(got), 1), np.float32)], axis=1).astype(np.float64)
    # rcond ignores directions with almost no variance, as for a class that is never predicted.
    change = np.linalg.lstsq(design, logits.astype(np.float64) - got, rcond=1e-4)[0]
    weight, bias = (numpy_helper.to_array(stored[name]).astype(np.float64) for name in last.input[1:3])
    transposed = any(attribute.name == "transB" and attribute.i for attribute in last.attribute)
    turned = np.eye(len(bias)) + change[:-1].T
    for name, values in zip(
        last.input[1:3], (turned @ weight if transposed else weight @ turned.T, turned @ bias + change[-1]), strict=True
    ):
        stored[name].CopyFrom(numpy_helper.from_array(values.astype(np.float32), name))
