"""Input of the guard: 32 x 32 thumbnails, and the scores that do not depend on the training slices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from stageproof.runtime.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIZE = 32
"""Side of the thumbnail, in pixels."""

_BORDER = np.flatnonzero(np.pad(np.zeros((SIZE - 2, SIZE - 2), bool), 1, constant_values=True))
_HEAD = np.float32(0.2)
"""Brightness threshold of the head, relative to the 99th percentile."""


@dataclass(frozen=True)
class Thumbnail:
    """A thumbnail, the input of the guard."""

    pixels: bytes
    """32 x 32 uint8, grey, row by row: each the mean of an area of the image."""
    colour: float
    """Mean difference between the largest and the smallest channel, in [0, 1]; 0 for a grey image."""


def thumbnail(image: Image.Image) -> Thumbnail:
    """The thumbnail of an image of mode L or RGB, any size. Raises InputError for any other mode."""
    if image.mode not in ("L", "RGB"):
        raise InputError(f"the image has mode {image.mode}; expected L or RGB. Read it with runtime.read_image.")
    width, height = image.size
    if width % SIZE or height % SIZE:
        small = image.resize((SIZE, SIZE), Image.Resampling.BOX)
    else:
        small = image.reduce((width // SIZE, height // SIZE))  # same mean, rounded once, in a quarter of the time
    if image.mode == "L":
        return Thumbnail(small.tobytes(), 0.0)
    planes = np.asarray(small, dtype=np.float32)
    colour = float((planes.max(axis=2) - planes.min(axis=2)).mean() / 255.0)
    return Thumbnail(small.convert("L").tobytes(), colour)


def thumbnail_scores(thumbnails: Sequence[Thumbnail]) -> tuple[dict[str, NDArray[Any]], NDArray[np.float32]]:
    """The scores of N thumbnails that need no fit, (N,) each, and their brightness: float32 (N, 32, 32), 0 to 1.5.

    Brightness is relative to each image's 99th percentile, because scanners and exporters scale intensities
    differently.
    """
    pixels = np.frombuffer(b"".join(one.pixels for one in thumbnails), np.uint8).reshape(-1, SIZE * SIZE)
    edge = pixels.shape[1] // 100  # the 1st and the 99th percentile
    ordered = np.sort(pixels.astype(np.uint16), axis=1)  # numpy sorts 16 bits ten times as fast as 8
    low, high = ordered[:, edge].astype(float), ordered[:, -1 - edge].astype(float)
    bright = np.maximum(high, 1.0)
    brightness = pixels / bright.astype(np.float32)[:, None]
    scores = {
        "blank": 1.0 - (high - low) / 255.0,
        "colour": np.array([one.colour for one in thumbnails]),
        "border": pixels[:, _BORDER].sum(axis=1) / _BORDER.size / bright,
        "smooth": _smoothness(brightness),
    }
    return scores, np.minimum(brightness, np.float32(1.5), out=brightness).reshape(-1, SIZE, SIZE)


def _smoothness(brightness: NDArray[np.float32]) -> NDArray[Any]:
    """(N,): 1 minus the mean absolute difference of horizontal neighbours within the head. brightness: (N, 1024)."""
    inside = brightness > _HEAD
    within = inside[:, 1:] & inside[:, :-1]
    within[:, SIZE - 1 :: SIZE] = False  # the end of one row and the start of the next
    steps = np.abs(brightness[:, 1:] - brightness[:, :-1])
    steps *= within
    return 1.0 - steps.sum(axis=1) / np.maximum(within.sum(axis=1), 1)
