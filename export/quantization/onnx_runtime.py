"""Runs an in-memory ONNX graph in ONNX Runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from onnx import ModelProto


def run(model: ModelProto, images: np.ndarray, threads: int, precision: str = "int8") -> np.ndarray:
    """(N, classes) float32 logits of the graph on the CPU. images: (N, C, H, W) float32."""
    import onnxruntime

    from stageproof.runtime.backends.onnx import WRONG_OPTIMIZERS

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(),
        settings,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=WRONG_OPTIMIZERS.get(precision),
    )
    parts = np.array_split(images, -(-len(images) // 16))
    return np.concatenate([session.run(None, {"images": np.ascontiguousarray(part)})[0] for part in parts])
