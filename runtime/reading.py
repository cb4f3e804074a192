"""A source of any kind becomes a `Picture`: the image the model sees, and what a person should know of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from PIL import Image

from runtime.dicom import read_dicom
from runtime.images import ImageSource, decode, read_image
from runtime.signatures import is_dicom
from runtime.sources import encoded


@dataclass(frozen=True)
class Picture:
    """One decoded still image."""

    image: Image.Image
    """Upright, mode L or RGB."""
    transforms: tuple[str, ...] = ()
    """What was done to a DICOM file's stored values, in order."""
    warnings: tuple[str, ...] = ()


Source: TypeAlias = ImageSource | Picture
"""What `Predictor` takes: an `ImageSource`, DICOM files included, or a `Picture` that was read before."""


def read(source: Source) -> Picture:
    """The one image of `source`. Raises ImageError when it cannot be read, or is a DICOM file of several frames."""
    pictures = read_all(source, most=1)
    return pictures[0]


def read_all(source: Source, most: int | None = None) -> list[Picture]:
    """Every frame of a DICOM file, or the one image of anything else; more frames than `most` are an ImageError."""
    if isinstance(source, Picture):
        return [source]
    if isinstance(source, (np.ndarray, Image.Image)):
        return [Picture(read_image(source))]
    data, where = encoded(source)
    if is_dicom(data):
        file = read_dicom(data, where, most=most)
        return [Picture(frame, file.transforms, file.warnings) for frame in file.frames]
    return [Picture(decode(data, where))]
