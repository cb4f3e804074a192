"""Which layers lose most in 8 bits: each is put back to float by itself, and the logits tell."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from stageproof.export.quantization.onnx_runtime import run
from stageproof.export.quantization.qdq_edit import float_layers_of, layers, with_float_layers

if TYPE_CHECKING:
    from onnx import ModelProto

RANKING_IMAGES = 64
"""Training slices that it is measured on."""


def rank(
    full: ModelProto,
    original: ModelProto,
    images: np.ndarray,
    logits: np.ndarray,
    threads: int,
    say: Callable[[str], None],
    precision: str = "int8",
) -> list[str]:
    """Names of the quantised layers, the one first whose return to float brings the logits closest to the reference.

    images: (N, C, H, W) float32 training slices, so that the choice is not made on what the gate measures.
    logits: (N, classes) float32 of the reference.
    """
    scores = []
    kept = float_layers_of(full)
    candidates = [name for name in layers(full) if name not in kept]
    for position, name in enumerate(candidates):
        error = run(with_float_layers(full, [name], original), images, threads, precision) - logits
        scores.append((float(np.square(error).mean()), position, name))
        if position % 10 == 9:
            say(f"{precision}: {position + 1} of {len(candidates)} layers tried")
    return [name for _, _, name in sorted(scores)]
