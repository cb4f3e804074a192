"""Comparison images for artifacts that take pixels: the slices at ten sizes, greyscale and colour, uint8."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

import numpy as np
from PIL import Image

from stageproof.export.data.sampling import decoded
from stageproof.train.data.samples import Samples

SIZES = (
    (128, 128), (96, 96), (97, 131), (176, 208), (208, 176), (224, 224), (256, 256), (199, 300), (300, 199), (512, 512)
)  # fmt: skip
"""Height and width: smaller and larger than model inputs, odd sizes, and both orders of Pillow's resizing passes."""
TINT = (1.0, 0.85, 0.7)
"""Factors of red, green and blue, so that all channels differ."""


@dataclass(frozen=True)
class PixelEvaluationSet:
    """uint8 slices, sorted by size and number of channels, with the reference's logits."""

    images: tuple[np.ndarray, ...]
    """(H, W, 1 or 3) uint8 each."""
    logits: np.ndarray
    """(N, classes) float32, of the float32 reference after `runtime.preprocess`."""
    truth: np.ndarray | None
    names: tuple[str, ...]
    source: str
    people: np.ndarray | None = None
    """(N,) int64, patient of each image; None if unknown."""

    def groups(self) -> list[np.ndarray]:
        """(N, H, W, C) uint8 arrays, one for each image shape, in order."""
        return [np.stack(list(group)) for _, group in groupby(self.images, key=lambda image: image.shape)]


def pixel_images(samples: Samples) -> tuple[tuple[np.ndarray, ...], list[int]]:
    """(images, index of the sample of each image), sorted by shape: each slice at one of `SIZES`, half of them in
    colour.

    Raises DatasetError for a sample that cannot be read.
    """
    order = sorted(range(len(samples)), key=lambda index: (index % len(SIZES), index // len(SIZES) % 2))
    images = []
    chosen = samples.select(np.array(order, np.int64))
    for index, image in zip(order, decoded(chosen, " for the comparison"), strict=True):
        height, width = SIZES[index % len(SIZES)]
        pixels = np.array(image.convert("L").resize((width, height), Image.Resampling.LANCZOS))[..., None]
        if index // len(SIZES) % 2:
            pixels = (pixels * np.array(TINT, np.float32)).astype(np.uint8)
        images.append(pixels)
    return tuple(images), order


def as_image(pixels: np.ndarray) -> Image.Image:
    """The PIL image. pixels: (H, W, 1 or 3) uint8."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
