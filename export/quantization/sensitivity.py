"""Quantisation sensitivity: ranks layers by how much the logit error falls when one layer is kept in float32."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np

from stageproof.export.quantization.onnx_runtime import run
from stageproof.export.quantization.qdq_edit import float_layers_of, layers, with_float_layers
from stageproof.train.terminal.bars import bar

if TYPE_CHECKING:
    from onnx import ModelProto

logger = logging.getLogger(__name__)

RANKING_IMAGES = 64
"""Number of training slices for the ranking."""


def rank(
    full: ModelProto,
    original: ModelProto,
    images: np.ndarray,
    logits: np.ndarray,
    threads: int,
    precision: str = "int8",
) -> list[str]:
    """Names of the quantised layers, most sensitive first: keeping it in float32 gives the smallest logit error.

    images: (N, C, H, W) float32 training slices, so that the gate's images do not influence the selection.
    logits: (N, classes) float32 of the reference.
    """
    scores = []
    kept = float_layers_of(full)
    candidates = [name for name in layers(full) if name not in kept]
    with bar(f"{precision}: sensitivity of layers", len(candidates)) as advance:
        for position, name in enumerate(candidates):
            error = run(with_float_layers(full, [name], original), images, threads, precision) - logits
            scores.append((float(np.square(error).mean()), position, name))
            advance()
            if position % 10 == 9:
                logger.info(f"{precision}: sensitivity of {position + 1} of {len(candidates)} layers measured")
    return [name for _, _, name in sorted(scores)]
