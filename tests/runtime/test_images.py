"""What `read_image` refuses and how: other files, truncated ones, bombs; orientation, frames, and threads."""

from __future__ import annotations

import io
import random
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from stageproof.runtime.errors import ImageError
from stageproof.runtime.images import raster as images
from stageproof.runtime.images.raster import MAX_PIXELS, read_image

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
    root = Path(images.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
