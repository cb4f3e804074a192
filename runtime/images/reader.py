"""`read` and `read_all`: read any supported source, including DICOM, into `Picture`s."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from PIL import Image

from stageproof.runtime.dicom.image import read_dicom
from stageproof.runtime.errors import ImageError, without_traceback
from stageproof.runtime.headers.limits import MAX_PIXELS
from stageproof.runtime.headers.signatures import is_dicom
from stageproof.runtime.images.raster import ImageSource, decode, unencoded
from stageproof.runtime.images.source_bytes import encoded, known_size

if TYPE_CHECKING:
    from stageproof.runtime.decoding.pool import Decoders


@dataclass(frozen=True)
class Picture:
    """One decoded still image."""

    image: Image.Image
    """Upright, mode L or RGB."""
    transforms: tuple[str, ...] = ()
    """Transforms applied to a DICOM file's stored values, in order."""
    warnings: tuple[str, ...] = ()


Source: TypeAlias = ImageSource | Picture
"""Types that `Predictor` accepts: an `ImageSource`, including DICOM files, or a `Picture`."""


def read(source: Source, max_pixels: int = MAX_PIXELS, pool: Decoders | None = None) -> Picture:
    """The single image of `source`. Raises ImageError if unreadable, or for a DICOM file with several frames."""
    try:
        return read_all(source, 1, max_pixels, pool)[0]
    except ImageError as error:
        del source  # the traceback would keep it in memory
        raise without_traceback(error) from None


def read_all(
    source: Source, most: int | None = None, max_pixels: int = MAX_PIXELS, pool: Decoders | None = None
) -> list[Picture]:
    """All frames of a DICOM file, or the single image of another source.

    most: limit on the number of frames. max_pixels: limit on the pixels of an image or frame.
    pool: decoder processes for encoded images (`runtime.decoding.pool`); None decodes in this process.
    Raises ImageError if unreadable or beyond a limit.
    """
    if isinstance(source, Picture):
        return [source]
    try:
        if isinstance(source, (np.ndarray, Image.Image)):
            return [Picture(unencoded(source, max_pixels))]
        if pool is None:
            return decoded(*encoded(source), most, max_pixels)
        size = known_size(source)
        with pool.large(size) as alone:
            return pool.decoded(*encoded(source), most, max_pixels, alone=bool(alone))
    except ImageError as error:
        del source
        raise without_traceback(error) from None


def decoded(data: bytes, where: str, most: int | None, max_pixels: int) -> list[Picture]:
    """As `read_all`, for an encoded image. where: its name in messages."""
    if is_dicom(data):
        file = read_dicom(data, where, most=most, max_pixels=max_pixels)
        return [Picture(frame, file.transforms, file.warnings) for frame in file.frames]
    return [Picture(decode(data, where, max_pixels))]
