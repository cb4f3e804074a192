"""Every mode of Pillow's, 16 bits among them, becomes 8-bit grey or colour, or a typed error; the source stays."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from stageproof.runtime.errors import ImageError
from stageproof.runtime.images.raster import read_image

# (6, 8) uint8, no symmetry, so that a flipped or rotated result cannot pass for the right one.
GREY = np.random.default_rng(11).integers(0, 256, (6, 8), dtype=np.uint8)
COLOUR = np.random.default_rng(12).integers(0, 256, (6, 8, 3), dtype=np.uint8)
NOISE = np.random.default_rng(13).integers(0, 30, (40, 48))
WIDE = Image.fromarray((np.add.outer(np.arange(40) * 3, np.arange(48) * 2) + NOISE).astype(np.uint8))


def encode(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(array: np.ndarray, depth: int, colour_type: int, *extra: bytes) -> bytes:
    """A PNG of any depth and colour type, some of which Pillow cannot write."""
    height, width = array.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2" if depth == 16 else np.uint8).tobytes() for row in array)
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    parts = [chunk(b"IHDR", header), *extra, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def assert_pixels(image: Image.Image, expected: np.ndarray) -> None:
    assert type(image) is Image.Image
    assert image.mode == ("L" if expected.ndim == 2 else "RGB")
    assert image.info == {}
    assert np.array_equal(np.asarray(image), expected)


def with_alpha(pixels: np.ndarray, alpha: np.ndarray) -> Image.Image:
    return Image.fromarray(np.dstack([pixels, alpha]))


def over_black(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    alpha = alpha if pixels.ndim == 2 else alpha[..., None]
    return np.rint(pixels * alpha.astype(float) / 255).astype(np.uint8)


@pytest.mark.parametrize("pixels", [GREY, COLOUR], ids=["LA", "RGBA"])
def test_alpha_is_laid_over_black(pixels: np.ndarray) -> None:
    alpha = np.random.default_rng(5).integers(0, 256, (6, 8), dtype=np.uint8)
    alpha[0], alpha[1] = 0, 255
    assert_pixels(read_image(encode(with_alpha(pixels, alpha))), over_black(pixels, alpha))


def test_one_transparent_colour_is_laid_over_black() -> None:
    grey, colour = GREY.copy(), COLOUR.copy()
    grey[2, 3], colour[4, 5] = 200, (9, 8, 7)
    expected = np.where(grey == 200, 0, grey)
    assert_pixels(read_image(encode(Image.fromarray(grey), transparency=200)), expected)
    expected = np.where((colour == (9, 8, 7)).all(2)[..., None], 0, colour)
    assert_pixels(read_image(encode(Image.fromarray(colour), transparency=(9, 8, 7))), expected)


def palette_image(colours: list[tuple[int, int, int]]) -> Image.Image:
    image = Image.fromarray((GREY % 3).astype(np.uint8)).convert("P")
    image.putdata([int(v) for v in (GREY % 3).ravel()])
    image.putpalette([value for colour in colours for value in colour])
    return image


@pytest.mark.parametrize("form", ["PNG", "GIF", "BMP", "TIFF"])
def test_a_palette_is_looked_up(form: str) -> None:
    shades = np.array([200, 10, 90], np.uint8)
    grey = palette_image([(v, v, v) for v in shades.tolist()] + [(255, 0, 0)])  # the red entry is not used
    assert_pixels(read_image(encode(grey, form)), shades[GREY % 3])
    colours = np.array([(1, 2, 3), (200, 0, 7), (4, 4, 4)], np.uint8)
    assert_pixels(read_image(encode(palette_image([tuple(c) for c in colours.tolist()]), form)), colours[GREY % 3])


@pytest.mark.parametrize("transparency", [1, b"\xff\x00\xff"], ids=["entry", "alphas"])
def test_a_palette_with_transparency_is_laid_over_black(transparency: int | bytes) -> None:
    image = palette_image([(200, 200, 200), (255, 0, 0), (90, 90, 90)])
    expected = np.array([200, 0, 90], np.uint8)[GREY % 3]  # the only colour is invisible, so it is grey
    assert_pixels(read_image(encode(image, "PNG", transparency=transparency)), expected)


def test_partial_palette_alpha() -> None:
    image = palette_image([(200, 100, 0), (255, 255, 255), (90, 90, 90)])
    colours = np.array([(100, 50, 0), (128, 128, 128), (90, 90, 90)], np.uint8)
    assert_pixels(read_image(encode(image, "PNG", transparency=b"\x80\x80\xff")), colours[GREY % 3])


def test_one_bit() -> None:
    bits = GREY > 128
    assert_pixels(read_image(encode(Image.fromarray(bits))), np.where(bits, 255, 0).astype(np.uint8))


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "HSV", "RGBX"])
def test_colour_spaces_become_rgb(mode: str) -> None:
    image = Image.fromarray(COLOUR).convert(mode)
    assert_pixels(read_image(image), np.asarray(image.convert("RGB")))


def test_cmyk_files() -> None:
    data = encode(Image.new("CMYK", (8, 6), (0, 255, 255, 0)), "JPEG", quality=100)
    assert np.abs(np.asarray(read_image(data)).astype(int) - (255, 0, 0)).max() <= 3


@pytest.mark.parametrize("mode", ["F", "I", "LAB"])
def test_modes_without_an_eight_bit_meaning_are_refused(mode: str) -> None:
    with pytest.raises(ImageError, match=f"mode {mode}, which has no defined range.*with the window"):
        read_image(Image.new(mode, (4, 4)))


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_tiff_of_32_bits_is_refused(dtype: type) -> None:
    with pytest.raises(ImageError, match="has no defined range"):
        read_image(encode(Image.fromarray(GREY.astype(dtype)), "TIFF"))


SIXTEEN = GREY.astype(np.uint16) * 257


def big_endian_tiff(array: np.ndarray) -> bytes:
    height, width = array.shape
    tags = [(256, 4, width), (257, 4, height), (258, 3, 16), (259, 3, 1), (262, 3, 1), (273, 4, 134), (277, 3, 1)]
    tags += [(278, 4, height), (279, 4, array.size * 2)]
    entries = b"".join(
        struct.pack(">HHI", tag, kind, 1) + (struct.pack(">I", v) if kind == 4 else struct.pack(">HH", v, 0))
        for tag, kind, v in tags
    )
    head = b"MM\0*" + struct.pack(">I", 8) + struct.pack(">H", len(tags)) + entries + bytes(4)
    return head.ljust(134, b"\0") + array.astype(">u2").tobytes()


SIXTEEN_BIT_SOURCES: dict[str, Callable[[np.ndarray], object]] = {
    "png": lambda a: png(a, 16, 0),
    "tiff": lambda a: encode(Image.fromarray(a), "TIFF"),
    "big-endian tiff": big_endian_tiff,
    "pgm": lambda a: b"P5 %d %d 65535\n" % a.shape[::-1] + a.astype(">u2").tobytes(),
    "jpeg 2000": lambda a: encode(Image.fromarray(a), "JPEG2000"),
    "PIL": Image.fromarray,
    "array": lambda a: a,
    "big-endian array": lambda a: a.astype(">u2"),
}


@pytest.mark.parametrize("make", SIXTEEN_BIT_SOURCES.values(), ids=SIXTEEN_BIT_SOURCES)
def test_sixteen_bits_are_scaled_by_the_full_range(make: Callable[[np.ndarray], object]) -> None:
    assert_pixels(read_image(make(SIXTEEN)), GREY)  # exact for what was made from 8 bits
    values = np.random.default_rng(2).integers(0, 65536, (37, 41)).astype(np.uint16)
    assert_pixels(read_image(make(values)), np.rint(values / 257).astype(np.uint8))


@pytest.mark.parametrize("make", SIXTEEN_BIT_SOURCES.values(), ids=SIXTEEN_BIT_SOURCES)
def test_twelve_bits_in_sixteen_are_refused(make: Callable[[np.ndarray], object]) -> None:
    narrow = GREY.astype(np.uint16)
    narrow[0, 0] = 4095
    with pytest.raises(ImageError, match=r"all below 4096.*unknown intensity window.*Convert it to 8 bits"):
        read_image(make(narrow))
    narrow[0, 0] = 4096
    assert np.asarray(read_image(make(narrow)))[0, 0] == 16
    assert_pixels(read_image(make(np.zeros((5, 4), np.uint16))), np.zeros((5, 4), np.uint8))


def test_sixteen_bit_tiff_where_white_is_zero() -> None:
    data = encode(Image.fromarray(SIXTEEN), "TIFF", tiffinfo={262: 0})
    stored = np.asarray(Image.open(io.BytesIO(data)))
    assert np.array_equal(stored, SIXTEEN)  # Pillow inverts neither when writing nor when reading
    assert_pixels(read_image(data), 255 - GREY)


def test_sixteen_bit_colour() -> None:
    colour = COLOUR.astype(np.uint16) * 257
    assert_pixels(read_image(png(colour, 16, 2)), COLOUR)
    with pytest.raises(ImageError, match="all below 4096"):
        read_image(png(colour >> 4, 16, 2))
    assert_pixels(read_image(png(colour * 0, 16, 2)), COLOUR * 0)


def test_the_callers_image_stays_as_it_was() -> None:
    image = palette_image([(200, 200, 200), (255, 0, 0), (90, 90, 90)])
    image.info["transparency"] = b"\xff\x80\xff"
    exif = Image.Exif()
    exif[0x0112] = 6
    image.info["exif"] = exif.tobytes()
    image.load()  # Pillow itself writes the transparency into the palette here
    info, palette, pixels = dict(image.info), image.im.getpalette("RGBA", "RGBA"), image.tobytes()
    turned = read_image(image)
    assert turned.size == (6, 8)
    assert (image.mode, image.size, image.info, image.tobytes()) == ("P", (8, 6), info, pixels)
    assert image.im.getpalette("RGBA", "RGBA") == palette


@pytest.mark.parametrize("pixels", [GREY, COLOUR], ids=["grey", "colour"])
def test_the_result_is_not_the_callers_image(pixels: np.ndarray) -> None:
    image = Image.fromarray(pixels)
    image.info["comment"] = "Doe^Jane"
    result = read_image(image)
    image.paste(0, (0, 0, 8, 6))
    assert_pixels(result, pixels)
    assert image.info == {"comment": "Doe^Jane"}


def test_a_pil_image_that_cannot_be_loaded() -> None:
    image = Image.open(io.BytesIO(encode(WIDE)[:-200]))
    with pytest.raises(ImageError, match=r"the PIL image could not be decoded \(OSError\)"):
        read_image(image)
    with pytest.raises(ImageError, match="has no pixels"):
        read_image(Image.new("L", (0, 4)))
