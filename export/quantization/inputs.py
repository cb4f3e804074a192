"""`Inputs` of quantisation: float32 graph, images, the gate's tolerance, and a function to run graphs in engines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stageproof.export.data.evaluation_set import EvaluationSet
from stageproof.runtime.model_info import ModelInfo

if TYPE_CHECKING:
    from onnx import ModelProto


@dataclass(frozen=True)
class Inputs:
    """Inputs of the quantisation to one precision in one export."""

    float_graph: ModelProto
    calibration: EvaluationSet
    """Training slices for the activation ranges."""
    selection: EvaluationSet
    """Other training slices, for selecting the layers kept in float32."""
    compared: EvaluationSet
    """The gate's images; only the reference's logits and the patients are used."""
    model: ModelInfo
    flip_tolerance: float
    """Largest upper bound on the share of changed answers that the gate accepts; 0: no answer may change."""
    work: Path
    """Folder for temporary files; the quantiser deletes them."""
    threads: int
    run_in_engines: Callable[[ModelProto, np.ndarray], dict[str, np.ndarray]]
    """Runs a graph on (N, C, H, W) float32 images in all available backends: backend → (N, classes) float32 logits.
    Raises BackendUnavailable if no backend runs it."""


def few(evaluation_set: EvaluationSet, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(images, logits) of at most `count` evenly spaced images."""
    where = np.linspace(0, len(evaluation_set.images) - 1, min(count, len(evaluation_set.images))).astype(int)
    return evaluation_set.images[where], evaluation_set.logits[where]
