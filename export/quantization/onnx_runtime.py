"""Runs an in-memory ONNX graph in ONNX Runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stageproof.runtime.system.offline_import import import_onnxruntime

if TYPE_CHECKING:
    from onnx import ModelProto


def run(model: ModelProto, images: np.ndarray, threads: int, precision: str = "int8") -> np.ndarray:
    """(N, classes) float32 logits of the graph on the CPU. images: (N, C, H, W) float32."""
    return np.concatenate([logits for (logits,) in run_batches(model, None, images, threads, precision)])


def run_batches(
    model: ModelProto, names: list[str] | None, images: np.ndarray, threads: int, precision: str
) -> list[list[np.ndarray]]:
    """The outputs `names` (None: all) of the graph on the CPU, for each batch of 16 of the (N, C, H, W) images."""
    from stageproof.runtime.backends.onnx import WRONG_OPTIMIZERS

    onnxruntime = import_onnxruntime()

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
    return [session.run(names, {"images": np.ascontiguousarray(part)}) for part in parts]
