"""Conversion of any Pillow mode to 8-bit grey or RGB; ImageError for modes without a defined range.

Every conversion returns a new image, even if nothing changes.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import methodcaller
from typing import Any

import numpy as np
from PIL import Image

from stageproof.runtime.errors import ImageError

_PHOTOMETRIC_TAG, _WHITE_IS_ZERO = 262, 0  # TIFF 6.0, section 8

NARROW = (
    "has 16-bit pixels that are all below 4096: it has at most 12 bits, an unknown intensity window, and would "
    " be almost black. Convert it to 8 bits with the window you want."
)


def to_eight_bits(image: Image.Image, where: str) -> Image.Image:
    """The decoded image in mode L or RGB. Raises ImageError, naming `where`, for modes without a defined range."""
    if image.mode in ("I;16", "I;16L", "I;16B", "I;16N") or _is_sixteen_bits_in_32(image):
        values = _sixteen_bits(image)
        grey = from_sixteen_bits(values, where)
        if isinstance(clear := image.info.get("transparency"), int):
            grey.paste(0, mask=Image.fromarray(values == clear))
        return grey
    if "transparency" in image.info and image.mode in _WITH_ALPHA:
        image = image.convert(_WITH_ALPHA[image.mode])
    if image.mode not in _CONVERSIONS:
        raise ImageError(
            f"{where} has pixels of mode {image.mode}, which has no defined range; expected an 8-bit grey or colour "
            "image, or 16-bit grey. Convert it to 8 bits with the window you want."
        )
    return _CONVERSIONS[image.mode](image)


def as_stored(image: Image.Image, raw: str) -> Image.Image:
    """A decoded PNG with two errors of Pillow's conversion to 8 bits corrected; other images unchanged.

    raw: Pillow's raw mode. The transparent colour of a PNG is stored at the file's bit depth (PNG, third edition,
    11.3.1.1), and Pillow does not convert it when it converts 2, 4 or 16 bits to 8. Pillow converts 16-bit grey with
    alpha to colour.
    """
    if raw.startswith("LA;16") and image.mode == "RGBA":
        return Image.merge("LA", (image.getchannel("R"), image.getchannel("A")))
    clear = image.info.get("transparency")
    step = {"L;2": 85, "L;4": 17}.get(raw)
    if isinstance(clear, int) and step is not None:
        image = image.copy()
        image.info["transparency"] = clear * step
    elif isinstance(clear, tuple) and ";16" in raw:
        image = image.copy()
        image.info["transparency"] = tuple(value >> 8 for value in clear)
    return image


def _is_sixteen_bits_in_32(image: Image.Image) -> bool:
    # Pillow before 11, and PPM files, store 16-bit grey in mode I; from any other source, mode I is 32-bit.
    return image.mode == "I" and image.format in ("PNG", "PPM")


def _sixteen_bits(image: Image.Image) -> np.ndarray[Any, Any]:
    values = np.asarray(image)
    if getattr(image, "tag_v2", {}).get(_PHOTOMETRIC_TAG) == _WHITE_IS_ZERO and values.max() >= 4096:
        return 65535 - values  # Pillow inverts white-is-zero for 8 bits but not for 16
    return values


def from_sixteen_bits(values: np.ndarray[Any, Any], where: str) -> Image.Image:
    """Mode L image from (H, W) uint16, scaled by its full range. Raises ImageError if at most 12 bits are used."""
    # Pillow's convert("L") clips values above 255.
    if 0 < values.max() < 4096:
        raise ImageError(f"{where} {NARROW}")
    height, width = values.shape
    eight_bits = ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)  # 257 is odd: no ties to round
    return Image.frombytes("L", (width, height), eight_bits.tobytes())


def is_narrow(image: Image.Image) -> bool:
    """Whether 16-bit colour, of which Pillow keeps the high bytes, is all below 4096, as in `from_sixteen_bits`."""
    bands = image.getbands()
    brightest = max(int(np.asarray(image.getchannel(band)).max()) for band in bands if band != "A")
    return 0 < brightest < 4096 >> 8


def _over_black(image: Image.Image) -> Image.Image:
    if image.mode in ("La", "RGBa"):  # premultiplied alpha
        image = image.convert(image.mode.upper())
    opaque = image.convert("L" if image.mode == "LA" else "RGB")
    background = Image.new(opaque.mode, opaque.size)
    background.paste(opaque, mask=image.getchannel("A"))
    return background


def _from_palette(image: Image.Image) -> Image.Image:
    # Copied: Pillow writes the transparency into the palette of the image that it converts.
    colour = _over_black(image.copy().convert("RGBA"))
    red, green, blue = colour.split()
    return red if red.tobytes() == green.tobytes() == blue.tobytes() else colour


_WITH_ALPHA = {"1": "LA", "L": "LA", "RGB": "RGBA"}
"""Modes that can declare one colour as transparent (PNG's tRNS, GIF) → the mode with an alpha channel."""

_CONVERSIONS: dict[str, Callable[[Image.Image], Image.Image]] = {
    **dict.fromkeys(("1", "L"), methodcaller("convert", "L")),
    **dict.fromkeys(("LA", "La", "RGBA", "RGBa"), _over_black),
    **dict.fromkeys(("P", "PA"), _from_palette),
    **dict.fromkeys(("RGB", "RGBX", "CMYK", "YCbCr", "HSV"), methodcaller("convert", "RGB")),
}
