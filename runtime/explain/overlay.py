"""`draw_overlay`: a PNG with a slice, the slice under a heat map, and a caption."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

SIDE = 448
"""Longer side of each of the two pictures, in pixels."""

STRONGEST = 0.65
"""Opacity of the heat map at value 1; value 0 is transparent."""

_MARGIN = 12
_TEXT, _LOUD = 15, 20  # pixels high
_LEADING = 1.5
_COLOURS = np.array([(66, 10, 104), (147, 38, 103), (221, 81, 58), (252, 165, 10), (252, 255, 164)], np.float32)
"""Five colours of matplotlib's inferno, with monotonic brightness."""


def draw_overlay(image: Image.Image, heat: np.ndarray, caption: Sequence[str]) -> bytes:
    """The encoded PNG.

    image: mode L or RGB.
    heat: (h, w) float32 in [0, 1], interpolated to the image's size.
    caption: lines of text below the pictures; the first is emphasised, and also stored in the PNG's metadata.
    """
    scale = SIDE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    plain = image.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    width = 2 * size[0] + 3 * _MARGIN
    sizes = [_LOUD, *[_TEXT] * (len(caption) - 1)]
    lines = [
        (line, pixels) for text, pixels in zip(caption, sizes, strict=True) for line in _wrapped(text, pixels, width)
    ]
    height = size[1] + 2 * _MARGIN + sum(round(pixels * _LEADING) for _, pixels in lines)
    page = Image.new("RGB", (width, height), "black")
    page.paste(plain, (_MARGIN, _MARGIN))
    page.paste(_heated(plain, heat), (2 * _MARGIN + size[0], _MARGIN))
    pen = ImageDraw.Draw(page)
    top = size[1] + 2 * _MARGIN - _MARGIN // 2
    for line, pixels in lines:
        fill = "yellow" if pixels == _LOUD else "white"
        pen.text((_MARGIN, top), line, fill=fill, font=ImageFont.load_default(pixels))
        top += round(pixels * _LEADING)
    about = PngInfo()
    about.add_text("Description", caption[0])
    file = io.BytesIO()
    page.save(file, "PNG", pnginfo=about)
    return file.getvalue()


def _heated(plain: Image.Image, heat: np.ndarray) -> Image.Image:
    stretched = Image.fromarray(heat.astype(np.float32)).resize(plain.size, Image.Resampling.BILINEAR)
    strength = np.clip(np.asarray(stretched), 0.0, 1.0)
    steps = np.linspace(0.0, 1.0, len(_COLOURS))
    colour = np.stack([np.interp(strength, steps, _COLOURS[:, channel]) for channel in range(3)], axis=-1)
    opacity = (STRONGEST * strength)[..., None]
    mixed = np.asarray(plain, np.float32) * (1.0 - opacity) + colour * opacity
    return Image.fromarray(mixed.round().astype(np.uint8))


def _wrapped(text: str, pixels: int, width: int) -> list[str]:
    """`text` in a font of `pixels` height, wrapped to the page width."""
    font = ImageFont.load_default(pixels)
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width - 2 * _MARGIN:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
