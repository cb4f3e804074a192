"""Thumbnails for comparing slices, and their directions, whose products are correlations."""

from __future__ import annotations

import numpy as np
from PIL import Image

THUMBNAIL = 64
COARSE = 32


def thumbnail(image: Image.Image) -> np.ndarray:
    """(64, 64) uint8: the image in greyscale, downsampled with a box filter."""
    return np.asarray(image.convert("L").resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX))


def directions(thumbnails: np.ndarray, side: int = THUMBNAIL) -> np.ndarray:
    """(N, D) float32 rows with zero mean and unit norm, so that their products are correlations.

    thumbnails: (N, S, S) uint8, S a multiple of 32. D is the square of `side`, or of S if that is smaller.
    """
    count, full, _ = thumbnails.shape
    step = max(full // side, 1)
    vectors = np.empty((count, (full // step) ** 2), np.float32)
    for at in range(0, count, 4096):
        part = thumbnails[at : at + 4096].reshape(-1, full // step, step, full // step, step)
        rows = vectors[at : at + 4096]
        rows[:] = part.mean(axis=(2, 4), dtype=np.float32).reshape(len(part), -1)
        rows -= rows.mean(axis=1, keepdims=True)
        # A constant image has norm 0; the lower limit avoids a division by zero.
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)
    return vectors
