"""Every source that `read_image` takes, every trap of still images, and the typed error for the rest."""

from __future__ import annotations

import gzip
import io
import os
import random
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from runtime import images
from runtime.errors import ImageError
from runtime.images import MAX_PIXELS, read_image
from runtime.sources import MAX_FILE_BYTES

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


# Sources.

SOURCES: dict[str, Callable[[bytes, Path], object]] = {
    "str": lambda data, path: str(path),
    "Path": lambda data, path: path,
    "bytes": lambda data, path: data,
    "bytearray": lambda data, path: bytearray(data),
    "memoryview": lambda data, path: memoryview(data),
    "BytesIO": lambda data, path: io.BytesIO(data),
    "PIL": lambda data, path: Image.open(io.BytesIO(data)),
    "array": lambda data, path: np.asarray(Image.open(io.BytesIO(data))),
}


@pytest.mark.parametrize("pixels", [GREY, COLOUR], ids=["grey", "colour"])
@pytest.mark.parametrize("make", SOURCES.values(), ids=SOURCES)
def test_every_kind_of_source(tmp_path: Path, pixels: np.ndarray, make: Callable[[bytes, Path], object]) -> None:
    path = tmp_path / "scan.png"
    path.write_bytes(encode(Image.fromarray(pixels)))
    assert_pixels(read_image(make(path.read_bytes(), path)), pixels)


def test_a_path_of_any_kind(tmp_path: Path) -> None:
    class Anything(os.PathLike):
        def __fspath__(self) -> bytes:
            return os.fsencode(path)

    path = tmp_path / "scän 1.misnamed"
    path.write_bytes(encode(Image.fromarray(GREY)))
    assert_pixels(read_image(Anything()), GREY)


@pytest.mark.parametrize("make", [io.BytesIO, lambda data: io.BufferedReader(io.BytesIO(data))])
def test_a_file_object_is_read_from_its_start_and_stays_open(make: Callable[[bytes], io.IOBase]) -> None:
    stream = make(encode(Image.fromarray(GREY)))
    stream.seek(0, io.SEEK_END)
    assert_pixels(read_image(stream), GREY)
    assert not stream.closed


def test_a_stream_that_cannot_seek() -> None:
    reader, writer = os.pipe()
    with os.fdopen(writer, "wb") as stream:
        stream.write(encode(Image.fromarray(GREY)))
    with os.fdopen(reader, "rb") as stream:
        assert_pixels(read_image(stream), GREY)


@pytest.mark.parametrize("source", [None, 3, 2.5, ["a.png"], object(), {"path": "a.png"}])
def test_other_objects_are_refused(source: object) -> None:
    with pytest.raises(ImageError, match=rf"got builtins\.{type(source).__name__}; expected a path"):
        read_image(source)


def test_file_objects_that_misbehave() -> None:
    class Broken:
        def read(self) -> bytes:
            raise RuntimeError("patient name")

    with pytest.raises(ImageError, match=r"cannot be read \(RuntimeError\)\. Pass a path or bytes") as caught:
        read_image(Broken())
    assert "patient" not in str(caught.value)
    with pytest.raises(ImageError, match=r"gave str, expected bytes\. Open it in mode 'rb'"):
        read_image(io.StringIO("text"))
    closed = io.BytesIO(b"x")
    closed.close()
    with pytest.raises(ImageError, match="cannot be read"):
        read_image(closed)


# Paths that lead nowhere.


def test_missing_folder_empty_and_odd_paths(tmp_path: Path) -> None:
    missing, empty = tmp_path / "missing.png", tmp_path / "empty.png"
    empty.touch()
    with pytest.raises(ImageError, match=r"no such file: '.*missing\.png'"):
        read_image(missing)
    with pytest.raises(ImageError, match="no such file: ''"):
        read_image("")
    with pytest.raises(ImageError, match="is a folder; expected one image file"):
        read_image(tmp_path)
    with pytest.raises(ImageError, match=r"'.*empty\.png' is empty \(0 bytes\)"):
        read_image(empty)
    with pytest.raises(ImageError, match="is empty"):
        read_image(b"")
    with pytest.raises(ImageError, match="cannot be read: not a valid file name"):
        read_image("scan\0.png")
    with pytest.raises(ImageError, match="cannot be read: "):
        read_image("x" * 5000)


def test_a_pipe_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ImageError, match="is not a regular file"):
        read_image(tmp_path / "pipe")


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    path = tmp_path / "scan.png"
    path.write_bytes(b"x")
    monkeypatch.setattr(Path, "read_bytes", refuse)  # root, as in CI containers, may read everything
    with pytest.raises(ImageError, match="may not be read by this user"):
        read_image(path)


def test_a_file_too_large_to_be_one_slice(tmp_path: Path) -> None:
    path = tmp_path / "huge.tif"
    with path.open("wb") as stream:
        stream.truncate(MAX_FILE_BYTES + 1)  # sparse
    with pytest.raises(ImageError, match="has 1073741825 bytes; at most 1073741824"):
        read_image(path)


# Files that are no still image.


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"\0" * 128 + b"DICM" + b"Doe^Jane", "is a DICOM file; this reader takes still images\\. Predictor reads it"),
        (struct.pack("<i", 348) + b"\0" * 340 + b"n+1\0", "is a NIfTI volume.*Convert one slice to PNG first"),
        (struct.pack("<i", 540) + b"n+2\0\r\n\x1a\n" + b"\0" * 600, "is a NIfTI volume"),
        (gzip.compress(b"Doe^Jane"), "is a gzip file.*NIfTI"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "identified as one of PNG, JPEG, .*Save it as PNG"),
        (b"Doe^Jane, born 1931", "is not an image that can be identified"),
        (b"\x89PNG\r\n\x1a\n", "damaged at its start"),
    ],
)
def test_other_files_are_named_and_never_quoted(tmp_path: Path, data: bytes, match: str) -> None:
    path = tmp_path / "scan.png"
    path.write_bytes(data)
    with pytest.raises(ImageError, match=rf"scan\.png' {match}" if "is " in match else match) as caught:
        read_image(path)
    assert "Jane" not in str(caught.value)


@pytest.mark.parametrize("form", ["TGA", "ICO", "PCX", "SGI", "DDS"])
def test_formats_outside_the_list_are_refused(form: str) -> None:
    with pytest.raises(ImageError, match="is not an image that can be identified"):
        read_image(encode(Image.fromarray(COLOUR), form))


ENCODINGS: list[tuple[str, dict[str, object]]] = [
    ("PNG", {}),
    ("JPEG", {}),
    ("JPEG", {"progressive": True}),
    ("BMP", {}),
    ("GIF", {}),
    ("PPM", {}),
    ("TIFF", {}),
    ("TIFF", {"compression": "tiff_lzw"}),
    ("TIFF", {"compression": "packbits"}),
    ("WEBP", {"lossless": True}),
    ("JPEG2000", {}),
    ("JPEG2000", {"tile_size": (16, 16)}),
]


@pytest.mark.parametrize(("form", "options"), ENCODINGS)
def test_a_truncated_file_never_gives_half_an_image(form: str, options: dict) -> None:
    data = encode(WIDE, form, **options)
    whole = np.asarray(read_image(data))
    errors = 0
    for length in range(1, len(data)):
        try:
            image = read_image(data[:length])
        except ImageError:
            errors += 1
        else:  # only what follows the pixels is missing, such as PNG's IEND
            assert np.array_equal(np.asarray(image), whole), length
    assert errors > len(data) * 0.9


def test_a_process_that_asks_pillow_for_half_images_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(ImageError, match=r"LOAD_TRUNCATED_IMAGES.*Set it to False"):
        read_image(encode(WIDE)[:-300])


# Bombs.


@pytest.mark.parametrize("side", [8193, 10_000, 30_000])  # ours, Pillow's warning, Pillow's error
@pytest.mark.parametrize("action", ["error", "ignore"])
def test_decompression_bombs_are_refused_before_decoding(side: int, action: str) -> None:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    with warnings.catch_warnings():
        warnings.simplefilter(action)
        with pytest.raises(ImageError, match=f"{side} x {side}; at most|more pixels than the {MAX_PIXELS} allowed"):
            read_image(data)


def test_bombs_that_are_already_open_or_arrays() -> None:
    class Huge(Image.Image):
        size = (8193, 8193)

        def load(self) -> None:
            raise AssertionError("decoded before its size was checked")

    with pytest.raises(ImageError, match="the PIL image is 8193 x 8193"):
        read_image(Huge())
    with pytest.raises(ImageError, match="the array is 8193 x 8193"):
        read_image(np.broadcast_to(np.uint8(0), (8193, 8193)))


@pytest.mark.parametrize("after", [False, True], ids=["before the pixels", "after the pixels"])
def test_text_bombs_in_png_are_refused(after: bool) -> None:
    bomb = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(80_000_000), 9))
    data = png(GREY, 8, 0, *([] if after else [bomb]))
    data = data[:-12] + bomb + data[-12:] if after else data
    with pytest.raises(ImageError, match=r"could not be decoded \(ValueError\): .*unsafe to decode"):
        read_image(data)


def test_pillows_global_state_stays_as_it_was() -> None:
    before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters)
    read_image(encode(WIDE, "TIFF"))
    with pytest.raises(ImageError):
        read_image(b"nothing")
    assert (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters)) == before


# Orientation.


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_once(orientation: int, form: str) -> None:
    upright = np.asarray(WIDE)
    stored = {  # what a camera stores so that a viewer turns it upright: EXIF 2.32, section 4.6.4 A
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if form == "WEBP" else {"quality": 100} if form == "JPEG" else {}
    image = read_image(encode(Image.fromarray(np.ascontiguousarray(stored)), form, exif=exif, **options))
    difference = np.asarray(image.convert("L")).astype(int) - upright
    assert np.abs(difference).max() <= (2 if form == "JPEG" else 0)


@pytest.mark.parametrize("exif", [b"garbage", b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\x7f", b"Exif\0\0MM\0*"])
def test_exif_that_cannot_be_parsed_counts_as_upright(exif: bytes) -> None:
    data = encode(WIDE, "JPEG", exif=exif)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert read_image(data).size == WIDE.size


def test_exif_that_pillow_warns_of_where_warnings_are_errors() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ImageError, match="UserWarning"):
            read_image(encode(WIDE, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f"))


def test_an_orientation_that_does_not_exist_counts_as_upright() -> None:
    for value in (0, 9, 65535):
        exif = Image.Exif()
        exif[0x0112] = value
        assert_pixels(read_image(encode(Image.fromarray(GREY), exif=exif)), GREY)


# Modes.


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
    with pytest.raises(ImageError, match=f"mode {mode}, which have no defined 8-bit meaning.*with the window"):
        read_image(Image.new(mode, (4, 4)))


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_tiff_of_32_bits_is_refused(dtype: type) -> None:
    with pytest.raises(ImageError, match="no defined 8-bit meaning"):
        read_image(encode(Image.fromarray(GREY.astype(dtype)), "TIFF"))


# 16 bits.

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
    with pytest.raises(ImageError, match=r"none reaches 4096.*window is not known.*Convert it to 8 bits"):
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
    with pytest.raises(ImageError, match="none reaches 4096"):
        read_image(png(colour >> 4, 16, 2))
    assert_pixels(read_image(png(colour * 0, 16, 2)), COLOUR * 0)


# Animations and stacks.


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "TIFF", "MPO"])
def test_the_first_frame_is_taken(form: str) -> None:
    frames = [Image.new("L", (8, 6), value) for value in (50, 150, 250)]
    options = {"lossless": True} if form == "WEBP" else {}
    data = encode(frames[0], form, save_all=True, append_images=frames[1:], **options)
    assert Image.open(io.BytesIO(data)).n_frames == 3
    assert (np.asarray(read_image(data)) == 50).all()


# Arrays.


def test_an_array_need_not_be_contiguous_and_is_not_shared() -> None:
    array = np.repeat(np.repeat(GREY, 2, 0), 2, 1)[::-2, ::2]
    image = read_image(array)
    assert_pixels(image, GREY[::-1])
    array = GREY.copy()
    image = read_image(array)
    array[:] = 0
    assert_pixels(image, GREY)
    image.putpixel((0, 0), 1)
    assert (array == 0).all()
    assert_pixels(read_image(GREY[..., None]), GREY)
    assert_pixels(read_image(np.asfortranarray(COLOUR)), COLOUR)


@pytest.mark.parametrize(
    ("array", "match"),
    [
        (GREY > 9, r"bool of shape \(6, 8\); expected uint8.*astype\(numpy\.uint8\)"),
        (GREY.astype(np.float32), "float32 of shape"),
        (GREY.astype(np.int16) - 300, "int16 of shape"),
        (GREY.astype(np.int8), "int8 of shape"),
        (GREY.astype(np.uint32), "uint32 of shape"),
        (np.array([["a"]]), "expected uint8"),
        (np.array(None), "expected uint8"),
        (GREY[0], r"of shape \(8,\)"),
        (COLOUR[None], r"of shape \(1, 6, 8, 3\)"),
        (np.zeros((6, 8, 4), np.uint8), r"of shape \(6, 8, 4\)"),
        (np.zeros((6, 8, 2), np.uint8), r"of shape \(6, 8, 2\)"),
        (COLOUR.astype(np.uint16), "uint16 of shape"),
        (SIXTEEN[..., None], "uint16 of shape"),
        (COLOUR.transpose(2, 0, 1), r"\(3, 6, 8\), channel first; .*moveaxis\(array, 0, -1\)"),
        (GREY[None], r"\(1, 6, 8\), channel first"),
        (np.zeros((0, 8), np.uint8), "8 x 0: it has no pixels"),
        (np.zeros((6, 0, 3), np.uint8), "0 x 6: it has no pixels"),
        (np.zeros((0, 0), np.uint16), "has no pixels"),
    ],
)
def test_other_arrays_are_refused(array: np.ndarray, match: str) -> None:
    with pytest.raises(ImageError, match=match):
        read_image(array)


# PIL images.


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


# All at once.


def test_threads_reading_a_mix_all_get_their_own_answer() -> None:
    cases: list[tuple[bytes, np.ndarray | None]] = []
    for seed in range(6):
        pixels = np.random.default_rng(seed).integers(0, 256, (50 + seed, 60, 3), dtype=np.uint8)
        grey = pixels[..., 0].copy()
        cases += [(encode(Image.fromarray(grey), form), grey) for form in ("PNG", "BMP", "TIFF", "PPM", "GIF")]
        cases += [(encode(Image.fromarray(pixels), form), pixels) for form in ("PNG", "BMP", "JPEG2000")]
        cases += [(png(grey.astype(np.uint16) * 257, 16, 0), grey), (encode(Image.fromarray(grey))[:-400], None)]
    work = cases * 20
    random.Random(0).shuffle(work)
    start = threading.Barrier(8)

    def check(part: int) -> int:
        start.wait()
        for data, expected in work[part::8]:
            if expected is None:
                with pytest.raises(ImageError):
                    read_image(data)
            else:
                assert_pixels(read_image(data), expected)
        return len(work[part::8])

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(check, range(8))) == len(work)


def mutated(rng: random.Random, seeds: list[bytes]) -> bytes:
    data = bytearray(rng.choice(seeds))
    kind = rng.choice(["truncate", "flip", "overwrite", "noise"])
    if kind == "truncate":
        return bytes(data[: rng.randrange(len(data))])
    if kind == "noise":
        return bytes(data[:8]) + rng.randbytes(rng.randrange(200))
    head = rng.random() < 0.5  # half of the damage in the header, where it is worst
    for _ in range(rng.randint(1, 12)):
        at = rng.randrange(min(len(data), 120) if head else len(data))
        data[at] = data[at] ^ (1 << rng.randrange(8)) if kind == "flip" else rng.randrange(256)
    return bytes(data)


@pytest.mark.parametrize("action", ["error", "ignore"])
def test_damaged_files_give_an_image_or_an_image_error(action: str) -> None:
    rng = random.Random(7)
    forms = [("PNG", {}), ("JPEG", {}), ("BMP", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("GIF", {})]
    seeds = [encode(image, form, **options) for image in (WIDE, Image.fromarray(COLOUR)) for form, options in forms]
    outcomes = {"image": 0, "error": 0}
    with warnings.catch_warnings():
        warnings.simplefilter(action)
        for _ in range(300):
            try:
                image = read_image(mutated(rng, seeds))
            except ImageError:
                outcomes["error"] += 1
            else:
                outcomes["image"] += 1
                assert image.mode in ("L", "RGB")
                assert len(image.tobytes()) == image.width * image.height * len(image.getbands())
    assert min(outcomes.values()) > 30, outcomes  # both ways were exercised


def test_importing_stays_light() -> None:
    code = "import runtime.images, runtime.preprocess, sys; print(*(m for m in ('torch', 'scipy') if m in sys.modules))"
    root = Path(images.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
