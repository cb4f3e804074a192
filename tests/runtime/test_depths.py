"""Grey and colour of every bit depth that files have: right, or refused; transparency and orientation with them."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from stageproof.runtime.errors import ImageError
from stageproof.runtime.images.raster import read_image
from tests.runtime.test_eight_bits import chunk
from tests.runtime.test_pages import tiff

PIXELS = np.random.default_rng(11).integers(0, 256, (6, 8), dtype=np.uint8)


def packed(values: np.ndarray, depth: int) -> np.ndarray:
    """(rows, bytes) of (rows, columns) values of `depth` bits, the first in the highest bits."""
    bits = (values[..., None].astype(np.int64) >> np.arange(depth - 1, -1, -1)) & 1
    return np.packbits(bits.reshape(len(values), -1).astype(np.uint8), axis=1)


def exif(orientation: int) -> bytes:
    found = Image.Exif()
    found[0x0112] = orientation
    return found.tobytes().removeprefix(b"Exif\0\0")


def png(rows: np.ndarray, width: int, depth: int, colour_type: int, *extra: bytes) -> bytes:
    import struct
    import zlib

    header = struct.pack(">IIBBBBB", width, len(rows), depth, colour_type, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    return b"\x89PNG\r\n\x1a\n" + b"".join([chunk(b"IHDR", header), *extra, chunk(b"IDAT", body), chunk(b"IEND", b"")])


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_png_grey_of_few_bits_has_the_whole_range(depth: int) -> None:
    values = PIXELS >> (8 - depth)
    expected = np.rint(values * (255 / ((1 << depth) - 1))).astype(np.uint8)
    assert np.array_equal(np.asarray(read_image(png(packed(values, depth), 8, depth, 0))), expected)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_png_palettes_of_few_bits(depth: int) -> None:
    values = PIXELS >> (8 - depth)
    shades = np.random.default_rng(depth).integers(0, 256, 1 << depth, dtype=np.uint8)
    palette = chunk(b"PLTE", np.repeat(shades, 3).tobytes())
    assert np.array_equal(np.asarray(read_image(png(packed(values, depth), 8, depth, 3, palette))), shades[values])


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_png_with_one_transparent_grey(depth: int) -> None:
    values = PIXELS >> (8 - depth)
    gone = int(values[2, 3])
    transparent = chunk(b"tRNS", gone.to_bytes(2, "big"))
    expected = np.where(values == gone, 0, np.rint(values * (255 / ((1 << depth) - 1)))).astype(np.uint8)
    assert np.array_equal(np.asarray(read_image(png(packed(values, depth), 8, depth, 0, transparent))), expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_png_of_16_bits_with_one_transparent_colour(channels: int) -> None:
    values = np.random.default_rng(5).integers(0, 256, (6, 8, channels), dtype=np.uint8)
    deep = (values.astype(np.uint16) * 257).astype(">u2")
    clear = deep[2, 3]
    rows = deep.reshape(6, -1).view(np.uint8)
    image = read_image(png(rows, 8, 16, 0 if channels == 1 else 2, chunk(b"tRNS", clear.tobytes())))
    expected = np.where((deep == clear).all(axis=-1, keepdims=True), 0, values)
    assert np.array_equal(np.asarray(image), expected[..., 0] if channels == 1 else expected)


@pytest.mark.parametrize("colour_type", [4, 6], ids=["grey and alpha", "colour and alpha"])
def test_png_of_16_bits_with_alpha(colour_type: int) -> None:
    channels = 2 if colour_type == 4 else 4
    values = np.random.default_rng(3).integers(0, 256, (6, 8, channels), dtype=np.uint8)
    deep = (values.astype(np.uint16) * 257).astype(">u2")
    rows = deep.reshape(6, -1).view(np.uint8)
    expected = np.rint(values[..., :-1] * (values[..., -1:] / 255.0)).astype(np.uint8)
    expected = expected[..., 0] if colour_type == 4 else expected
    assert np.array_equal(np.asarray(read_image(png(rows, 8, 16, colour_type))), expected)
    turned = read_image(png(rows, 8, 16, colour_type, chunk(b"eXIf", exif(3))))
    assert np.array_equal(np.asarray(turned), expected[::-1, ::-1])


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("photometric", [0, 1])
def test_tiff_grey_of_8_bits_where_either_end_is_white(order: str, photometric: int) -> None:
    data = tiff([[]], order)
    start = data.index(b"\x06\x01\x03\0\x01\0\0\0" if order == "<" else b"\x01\x06\0\x03\0\0\0\x01") + 8
    value = photometric.to_bytes(2, "little" if order == "<" else "big")
    changed = data[:start] + value + data[start + 2 :]
    got = np.asarray(read_image(changed))
    assert np.array_equal(got, PIXELS if photometric else 255 - PIXELS)


@pytest.mark.parametrize("orientation", [3, 6, 8])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P", "CMYK", "1", "I;16"])
def test_every_mode_is_turned_upright(mode: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    if mode == "I;16":
        image = Image.fromarray(PIXELS.astype(np.uint16) * 257)
    else:
        image = Image.fromarray(PIXELS).convert("RGB" if mode == "P" else "L").convert(mode)
    plain, turned = io.BytesIO(), io.BytesIO()
    form = "TIFF" if mode == "CMYK" else "PNG"
    image.save(plain, form)
    image.save(turned, form, exif=exif)
    upright = np.asarray(read_image(plain.getvalue()))
    steps = {3: 2, 6: 3, 8: 1}[orientation]
    assert np.array_equal(np.asarray(read_image(turned.getvalue())), np.rot90(upright, steps))


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.uint32, np.float32])
def test_tiff_of_signed_wide_and_floating_pixels_is_refused(dtype: type) -> None:
    tifffile = pytest.importorskip("tifffile")
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, PIXELS.astype(dtype))
    with pytest.raises(ImageError, match=r"has no defined range|could not be|is not an image|starts like TIFF"):
        read_image(buffer.getvalue())


def test_a_stack_of_channels_is_never_taken_for_one_image() -> None:
    tifffile = pytest.importorskip("tifffile")
    for planes in (2, 5, 16):
        for options in ({}, {"photometric": "minisblack", "planarconfig": "separate"}, {"imagej": True}):
            buffer = io.BytesIO()
            tifffile.imwrite(buffer, np.stack([PIXELS] * planes), **options)
            with pytest.raises(ImageError):
                read_image(buffer.getvalue())
