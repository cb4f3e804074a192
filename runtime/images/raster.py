"""Anything a user has becomes one decoded still image, grey or RGB, or a typed error that says what to do.

Nothing here changes Pillow's global state or the warning filters, so hosts with threads can embed it. Messages name
a file as the caller named it and never quote what is in it, which may identify a patient.
"""

from __future__ import annotations

import io
import os
from typing import Any, BinaryIO, TypeAlias

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from stageproof.runtime.errors import ImageError, shed
from stageproof.runtime.headers.checks import check_headers, check_size
from stageproof.runtime.headers.limits import MAX_PIXELS, TooLargeError
from stageproof.runtime.headers.pages import several
from stageproof.runtime.headers.signatures import what_is
from stageproof.runtime.images.eight_bit import NARROW, as_stored, from_sixteen_bits, is_narrow, to_eight_bits
from stageproof.runtime.images.source_bytes import encoded

ImageSource: TypeAlias = (
    str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Image.Image | np.ndarray[Any, Any]
)
"""What `read_image` takes: a path, an encoded image, a binary file object, a PIL image, or an array of pixels."""

FORMATS: tuple[str, ...] = ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP", "JPEG2000")
"""Pillow's names of the formats that are read."""
# Named, because Pillow would otherwise try every plugin on untrusted bytes: EPS starts Ghostscript, and others are
# rarely exercised parsers. The ones that Pillow imports at once stand first, so a PNG never waits for all to load.

_ORIENTATION_TAG = 0x0112  # EXIF 2.32, section 4.6.4 A
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_JPEG2000_TILE, _JPEG2000_END = b"\xff\x90", b"\xff\xd9"  # ISO/IEC 15444-1, A.4.2 and A.4.4; never within a tile's data

_UNKNOWN = (
    f"is not an image that can be identified as one of {', '.join(FORMATS)}, or it is damaged at its start. "
    "Save it as PNG."
)

_ARRAY_HELP = (
    "expected uint8 of shape (H, W), (H, W, 1) or (H, W, 3), or uint16 of shape (H, W). Scale to 0-255 with the "
    "window you want, then .astype(numpy.uint8)."
)


def read_image(source: ImageSource, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """One still image in mode L or RGB, decoded, upright, without metadata, and independent of the source.

    source: a path; an encoded image (bytes, bytearray, memoryview); a binary file object, read from its start; a PIL
    image, which stays as it is; or an array: uint8 (H, W), (H, W, 1), (H, W, 3), or uint16 (H, W).
    max_pixels: larger images are refused, by their header.

    - PNG, JPEG, BMP, TIFF, GIF, WebP, PPM and JPEG 2000, of one image: animations and stacks are refused.
    - Grey stays grey (mode L), as do palettes whose visible colours are all grey; everything else becomes RGB.
    - What is transparent is laid over black, because the background of an MRI slice is air.
    - 16-bit grey is scaled by its full range, round(v / 257): exact for images made from 8 bits.
    - EXIF orientation is applied; EXIF that cannot be parsed counts as upright. (Pillow warns of some; where the host
      turns warnings into errors, that becomes an ImageError.)

    Raises ImageError for anything else: missing, empty, truncated or damaged files, other formats (saying which),
    files of several images (saying how many), more than `max_pixels`, headers made to exhaust a decoder
    (`runtime.headers.checks`), 16-bit images that use only 12 bits or fewer, 32-bit and floating-point pixels.

    It decodes in this process. `Predictor`, unless told otherwise, decodes in one with limits
    (`runtime.decoding.pool`).
    """
    try:
        if isinstance(source, (np.ndarray, Image.Image)):
            return unencoded(source, max_pixels)
        return decode(*encoded(source), max_pixels)
    except ImageError as error:
        del source
        raise shed(error) from None


def unencoded(source: np.ndarray[Any, Any] | Image.Image, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """As `read_image`, of an array or a PIL image."""
    if isinstance(source, np.ndarray):
        return _from_array(source, max_pixels)
    _check_single(source, None, "the PIL image")
    return _decode(source, "the PIL image", max_pixels)


def decode(data: bytes, where: str, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """As `read_image`, of an encoded image that messages call `where`."""
    try:
        data = check_headers(data, where, max_pixels)
    except ImageError:
        raise
    except Exception as error:
        raise ImageError(_damaged(where, error)) from error
    with _open(data, where, max_pixels) as image:
        return _decode(image, where, max_pixels)


def _from_array(array: np.ndarray[Any, Any], max_pixels: int) -> Image.Image:
    shape, got = array.shape, f"the array is {array.dtype} of shape {array.shape}"
    if array.ndim == 3 and shape[0] in (1, 3) and shape[2] not in (1, 3):
        raise ImageError(f"{got}, channel first; expected channel last. Pass numpy.moveaxis(array, 0, -1).")
    grey, colour = array.ndim == 2 or shape[2:] == (1,), array.ndim == 3 and shape[2:] == (3,)
    bits = array.dtype.itemsize * 8 if array.dtype.kind == "u" else 0
    if not (bits == 8 and ((grey and array.ndim <= 3) or colour)) and not (bits == 16 and array.ndim == 2):
        raise ImageError(f"{got}; {_ARRAY_HELP}")
    height, width = shape[:2]
    check_size(width, height, "the array", max_pixels)
    if bits == 16:
        return from_sixteen_bits(array, "the array")
    # frombytes copies; Image.fromarray would lend the caller's memory to the image.
    return Image.frombytes("L" if grey else "RGB", (width, height), array.tobytes())


def _open(data: bytes, where: str, max_pixels: int) -> Image.Image:
    """The image with its header parsed and its pixels not yet decoded."""
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise ImageError(
            "this process has set PIL.ImageFile.LOAD_TRUNCATED_IMAGES, with which Pillow hands out half-decoded images "
            "as whole ones. Set it to False."
        )
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:  # a warning, where they are errors
        raise TooLargeError(
            f"{where} has more pixels than the {max_pixels} allowed. Resize it, or raise max_pixels."
        ) from error
    except UnidentifiedImageError as error:
        raise ImageError(f"{where} {what_is(data) or _UNKNOWN}") from error
    except Exception as error:
        raise ImageError(_damaged(where, error)) from error
    check_size(*image.size, where, max_pixels)
    _check_single(image, data, where)
    if image.format == "JPEG2000" and data.rfind(_JPEG2000_END) <= data.rfind(_JPEG2000_TILE):
        # OpenJPEG, alone among the decoders, fills tiles that are missing as a whole with black and says nothing.
        raise ImageError(f"{where} is truncated: its JPEG 2000 codestream has no end. Copy or export it again.")
    return image


def _check_single(image: Image.Image, data: bytes | None, where: str) -> None:
    try:
        found = several(image, data)
    except Exception as error:
        raise ImageError(_damaged(where, error)) from error
    if found is not None:
        step = "Save the one you want as PNG, or each as a file of its own for predict_study()."
        if data is None:
            step = "Pass image.copy() of the one you want, after image.seek()."
        raise ImageError(f"{where} holds {found}; expected one image. {step}")


def _decode(image: Image.Image, where: str, max_pixels: int) -> Image.Image:
    check_size(*image.size, where, max_pixels)
    try:
        # How the file stored its pixels is gone after load.
        raw = [str(tile[3]) for tile in getattr(image, "tile", ())]
        image.load()
        # Pillow decodes 16-bit colour by its high bytes.
        if any(";16" in one for one in raw) and image.mode in ("LA", "RGB", "RGBA") and is_narrow(image):
            raise ImageError(f"{where} {NARROW}")
        stored = as_stored(image, raw[0]) if image.format == "PNG" and raw else image
        result = to_eight_bits(stored, where)
        transposition = _UPRIGHT.get(_orientation(image))
        if transposition is not None:
            result = result.transpose(transposition)
    except ImageError:
        raise
    except Exception as error:
        raise ImageError(_damaged(where, error)) from error
    result.info = {}  # no metadata travels on
    return result


def _orientation(image: Image.Image) -> int:
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # noqa: BLE001  EXIF is free-form: a bad block says nothing about the pixels
        return 1
    return orientation if isinstance(orientation, int) else 1


def _damaged(where: str, error: Exception) -> str:
    # Pillow's own text can quote bytes of the file.
    return (
        f"{where} could not be decoded ({type(error).__name__}): it is truncated, damaged or unsafe to decode. "
        "Copy or export it again."
    )
