"""What quantisation is given: the float graph, images, the rule it will be judged by, and a way to ask the engines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stageproof.export.data.evaluation_set import Evidence
from stageproof.runtime.model_info import ModelInfo

if TYPE_CHECKING:
    from onnx import ModelProto


@dataclass(frozen=True)
class Inputs:
    """Of one precision of one export."""

    float_graph: ModelProto
    calibration: Evidence
    """Training slices that ranges are taken from."""
    selection: Evidence
    """Others, on whose errors float layers are chosen."""
    compared: Evidence
    """What the gate will measure on: the reference's logits there, and the people."""
    model: ModelInfo
    flip_tolerance: float
    """The largest upper bound on the share of changed answers that the gate will accept; 0: none may change."""
    work: Path
    """For files that a quantiser needs; it removes them."""
    threads: int
    run_in_engines: Callable[[ModelProto, np.ndarray], dict[str, np.ndarray]]
    """Backend → (N, classes) float32 logits of a graph on (N, C, H, W) float32 images, of all here that run it.
    Raises BackendUnavailable where none does."""
    say: Callable[[str], None]
    """Progress, for people."""


def few(evidence: Evidence, count: int) -> tuple[np.ndarray, np.ndarray]:
    """At most `count` images, evenly spread, and their logits."""
    where = np.linspace(0, len(evidence.images) - 1, min(count, len(evidence.images))).astype(int)
    return evidence.images[where], evidence.logits[where]
