"""`read_image`: decodes one still image, grey or RGB, from a file, encoded bytes, a PIL image or an array.

Thread-safe: changes neither Pillow's global state nor the warning filters. Error messages contain the path given by the
caller, and never the file's content, which may identify a patient.
"""

from __future__ import annotations

import io
import os
from typing import Any, BinaryIO, TypeAlias

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from stageproof.runtime.errors import ImageError, without_traceback
from stageproof.runtime.headers.checks import check_headers, check_size
from stageproof.runtime.headers.limits import MAX_PIXELS, TooLargeError
from stageproof.runtime.headers.pages import several
from stageproof.runtime.headers.signatures import what_is
from stageproof.runtime.images.eight_bit import NARROW, as_stored, from_sixteen_bits, is_narrow, to_eight_bits
from stageproof.runtime.images.source_bytes import encoded

ImageSource: TypeAlias = (
    str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Image.Image | np.ndarray[Any, Any]
)
"""Types that `read_image` accepts: path, encoded image, binary file object, PIL image, or array of pixels."""

FORMATS: tuple[str, ...] = ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP", "JPEG2000")
"""Supported formats, by Pillow's names."""
# Restricted, because Pillow would otherwise try every plugin on untrusted bytes: EPS starts Ghostscript, others are
# rarely tested parsers. Formats that Pillow preloads come first, so that a PNG does not cause the others to load.

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
_JPEG2000_TILE, _JPEG2000_END = b"\xff\x90", b"\xff\xd9"  # ISO/IEC 15444-1 A.4.2, A.4.4; not within tile data

_UNKNOWN = (
    f"is not an image that can be identified as one of {', '.join(FORMATS)}, or it is damaged at its start. "
    "Save it as PNG."
)

_ARRAY_HELP = (
    "expected uint8 of shape (H, W), (H, W, 1) or (H, W, 3), or uint16 of shape (H, W). Scale to 0-255 with the "
    "window you want, then .astype(numpy.uint8)."
)


def read_image(source: ImageSource, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """One decoded, upright image in mode L or RGB, without metadata, that shares no memory with the source.

    source: a path; an encoded image (bytes, bytearray, memoryview); a binary file object, read from its start; a PIL
    image, which is not modified; or an array: uint8 (H, W), (H, W, 1), (H, W, 3), or uint16 (H, W).
    max_pixels: limit on the pixels, checked in the header before decoding.

    - Formats: PNG, JPEG, BMP, TIFF, GIF, WebP, PPM and JPEG 2000 with a single image; no animations or stacks.
    - Grey images, and palette images with only grey visible colours, become mode L; all others RGB.
    - Transparent images are composited over black, because the background of an MRI slice is air.
    - 16-bit grey is scaled by its full range, round(v / 257): exact for images converted from 8 bits.
    - EXIF orientation is applied; invalid EXIF is ignored. (Pillow warns about some; if the host program turns warnings
      into errors, this raises ImageError.)

    Raises ImageError for missing, empty, truncated or damaged files, other formats, files with several images, more
    than `max_pixels`, headers that would exhaust a decoder (`runtime.headers.checks`), 16-bit images that use at most
    12 bits, 32-bit and floating-point pixels.

    Decodes in this process; `Predictor` by default decodes in sandboxed processes (`runtime.decoding.pool`).
    """
    try:
        if isinstance(source, (np.ndarray, Image.Image)):
            return unencoded(source, max_pixels)
        return decode(*encoded(source), max_pixels)
    except ImageError as error:
        del source
        raise without_traceback(error) from None


def unencoded(source: np.ndarray[Any, Any] | Image.Image, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """As `read_image`, for an array or a PIL image."""
    if isinstance(source, np.ndarray):
        return _from_array(source, max_pixels)
    _check_single(source, None, "the PIL image")
    return _decode(source, "the PIL image", max_pixels)


def decode(data: bytes, where: str, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """As `read_image`, for an encoded image. where: its name in messages."""
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
    # frombytes copies; Image.fromarray would share the caller's memory.
    return Image.frombytes("L" if grey else "RGB", (width, height), array.tobytes())


def _open(data: bytes, where: str, max_pixels: int) -> Image.Image:
    """The image with parsed header, before decoding its pixels."""
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise ImageError(
            "PIL.ImageFile.LOAD_TRUNCATED_IMAGES is set in this process, with which Pillow returns partially decoded "
            "images without an error. Set it to False."
        )
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:  # a warning, if these are errors
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
        # OpenJPEG fills missing tiles with black without reporting an error; no other decoder does.
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
        # load() discards the raw mode.
        raw = [str(tile[3]) for tile in getattr(image, "tile", ())]
        image.load()
        # Pillow keeps only the high bytes of 16-bit colour.
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
    result.info = {}  # removes metadata
    return result


def _orientation(image: Image.Image) -> int:
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # noqa: BLE001  invalid EXIF does not mean damaged pixels
        return 1
    return orientation if isinstance(orientation, int) else 1


def _damaged(where: str, error: Exception) -> str:
    # Pillow's message is omitted: it can quote bytes of the file.
    return (
        f"{where} could not be decoded ({type(error).__name__}): it is truncated, damaged or unsafe to decode. "
        "Copy or export it again."
    )
