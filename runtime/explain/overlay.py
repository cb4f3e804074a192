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
_BAR, _TICKS = 18, 34  # pixels wide: the colour bar, and the numbers beside it
_TEXT, _LOUD = 15, 20  # pixels high
_LEADING = 1.5
_COLOURS = np.array([(66, 10, 104), (147, 38, 103), (221, 81, 58), (252, 165, 10), (252, 255, 164)], np.float32)
"""Five colours of matplotlib's inferno, with monotonic brightness."""


def draw_overlay(image: Image.Image, heat: np.ndarray, inside: np.ndarray, caption: Sequence[str]) -> bytes:
    """The PNG: the slice, the slice under the heat map, and a colour bar.

    image: mode L or RGB.
    heat: (h, w) float32 in [0, 1], stretched over the image.
    inside: (height, width) bool of the image; where it is False no heat is drawn.
    caption: lines below it; the first stands out, and is in the PNG's own text as well.
    """
    scale = SIDE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    plain = image.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    width = 2 * size[0] + 4 * _MARGIN + _BAR + _TICKS
    sizes = [_LOUD, *[_TEXT] * (len(caption) - 1)]
    lines = [
        (line, pixels)
        for text, pixels in zip(map(_legible, caption), sizes, strict=True)
        for line in _wrapped(text, pixels, width)
    ]
    height = size[1] + 2 * _MARGIN + sum(round(pixels * _LEADING) for _, pixels in lines)
    page = Image.new("RGB", (width, height), "black")
    page.paste(plain, (_MARGIN, _MARGIN))
    page.paste(_heated(plain, heat, inside), (2 * _MARGIN + size[0], _MARGIN))
    pen = ImageDraw.Draw(page)
    _colour_bar(page, pen, 2 * size[0] + 3 * _MARGIN, size[1])
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


def _heated(plain: Image.Image, heat: np.ndarray, inside: np.ndarray) -> Image.Image:
    stretched = Image.fromarray(heat.astype(np.float32)).resize(plain.size, Image.Resampling.BILINEAR)
    shown = Image.fromarray(inside.astype(np.uint8)).resize(plain.size, Image.Resampling.NEAREST)
    return _mixed(np.asarray(plain, np.float32), np.asarray(stretched) * np.asarray(shown))


def _colour_bar(page: Image.Image, pen: ImageDraw.ImageDraw, left: int, height: int) -> None:
    """From 1 down to 0, in the colours that the heat has over a middle grey."""
    strength = np.repeat(np.linspace(1.0, 0.0, height)[:, None], _BAR, axis=1)
    page.paste(_mixed(np.full((height, _BAR, 3), 110.0, np.float32), strength), (left, _MARGIN))
    font = ImageFont.load_default(_TEXT)
    for text, share in (("1", 0.0), ("0.5", 0.5), ("0", 1.0)):
        top = _MARGIN + round(share * (height - _TEXT))
        pen.text((left + _BAR + 6, top), text, fill="white", font=font)


def _mixed(plain: np.ndarray, strength: np.ndarray) -> Image.Image:
    """(H, W, 3) under its heat. strength: (H, W), from 0 to 1."""
    strength = np.clip(strength, 0.0, 1.0)
    steps = np.linspace(0.0, 1.0, len(_COLOURS))
    colour = np.stack([np.interp(strength, steps, _COLOURS[:, channel]) for channel in range(3)], axis=-1)
    opacity = (STRONGEST * strength)[..., None]
    mixed = plain * (1.0 - opacity) + colour * opacity
    return Image.fromarray(mixed.round().astype(np.uint8))


def _wrapped(text: str, pixels: int, width: int) -> list[str]:
    """`text` in a font of `pixels` height, wrapped to the page width; words that are wider are broken."""
    font, most = ImageFont.load_default(pixels), width - 2 * _MARGIN
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > most:
            lines.append(word)
        else:
            lines[-1] = longer
        while font.getlength(lines[-1]) > most:
            fitting = next(end for end in range(len(lines[-1]), 0, -1) if font.getlength(lines[-1][:end]) <= most)
            lines[-1:] = [lines[-1][:fitting], lines[-1][fitting:]]
    return lines


def _legible(text: str) -> str:
    """`text` with an escape, such as ``\\u91cd``, for each character that the font lacks and would draw as a box."""
    font = ImageFont.load_default(_TEXT)
    box = bytes(font.getmask("\uffff"))
    lacking = {one for one in text if not one.isascii() and bytes(font.getmask(one)) == box}
    return "".join(one.encode("ascii", "backslashreplace").decode() if one in lacking else one for one in text)
