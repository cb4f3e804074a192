"""The slices that artifacts which take pixels are measured on: ten sizes, grey and colour, raw uint8."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

import numpy as np
from PIL import Image

from stageproof.runtime.decoding.pool import read_isolated
from stageproof.runtime.errors import DatasetError, ImageError
from stageproof.train.data.samples import Samples

SIZES = (
    (128, 128), (96, 96), (97, 131), (176, 208), (208, 176), (224, 224), (256, 256), (199, 300), (300, 199), (512, 512)
)  # fmt: skip
"""Height and width: smaller and larger than models take, odd ones, and one for each order of Pillow's two passes."""
TINT = (1.0, 0.85, 0.7)
"""Of red, green and blue, so that no two channels are the same."""


@dataclass(frozen=True)
class PixelEvidence:
    """Slices as uint8, those of one size and colour together, and what the reference says of them."""

    images: tuple[np.ndarray, ...]
    """(H, W, 1 or 3) uint8 each."""
    logits: np.ndarray
    """(N, classes) float32, of eager float32 after `runtime.preprocess`."""
    truth: np.ndarray | None
    names: tuple[str, ...]
    source: str
    people: np.ndarray | None = None
    """(N,) int64, equal for images of one person; None where nobody knows."""

    def groups(self) -> list[np.ndarray]:
        """(N, H, W, C) uint8: the images in their order, those of one shape in one array."""
        return [np.stack(list(group)) for _, group in groupby(self.images, key=lambda image: image.shape)]


def pixel_images(samples: Samples) -> tuple[tuple[np.ndarray, ...], list[int]]:
    """Every slice at one of `SIZES`, every other one in colour, and which sample each is; equal shapes are together.

    Raises DatasetError for a sample that cannot be read.
    """
    order = sorted(range(len(samples)), key=lambda index: (index % len(SIZES), index // len(SIZES) % 2))
    images = []
    for index in order:
        try:
            grey = read_isolated(samples.read(index)).image.convert("L")
        except (ImageError, OSError) as error:
            raise DatasetError(f"{samples.names[index]} of {samples.source} cannot be compared on: {error}") from error
        height, width = SIZES[index % len(SIZES)]
        pixels = np.array(grey.resize((width, height), Image.Resampling.LANCZOS))[..., None]
        if index // len(SIZES) % 2:
            pixels = (pixels * np.array(TINT, np.float32)).astype(np.uint8)
        images.append(pixels)
    return tuple(images), order


def as_image(pixels: np.ndarray) -> Image.Image:
    """The PIL image of (H, W, 1 or 3) uint8."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
