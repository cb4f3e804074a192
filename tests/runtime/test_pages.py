"""A file of several images is refused with their number, whatever it comes as; one image with its previews is one."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stageproof.runtime.errors import ImageError
from stageproof.runtime.images.raster import read_image

GREY = np.random.default_rng(11).integers(0, 256, (6, 8), dtype=np.uint8)
PAGES = [Image.fromarray(np.roll(GREY, number)) for number in range(5)]


def saved(form: str, pages: list[Image.Image], **options: object) -> bytes:
    buffer = io.BytesIO()
    if form == "WEBP":
        options["lossless"] = True
    first, *others = (page.copy() for page in pages)  # Pillow leaves its encoder's settings in what it saves
    first.save(buffer, form, save_all=True, append_images=others, **options)
    return buffer.getvalue()


def tiff(pages: list[list[tuple[int, int, int | bytes]]], order: str = "<", big: bool = False) -> bytes:
    """A TIFF of 8 x 6 grey pages, each with these tags (tag, type, value) beside the usual ones."""
    offset_form, count_form, size = ("Q", "Q", 8) if big else ("I", "H", 4)
    mark = b"II" if order == "<" else b"MM"
    head = mark + (struct.pack(f"{order}HHH", 43, 8, 0) if big else struct.pack(f"{order}H", 42))
    data = bytearray(head + bytes(size))
    link = len(head)
    for extra in pages:
        pixels = len(data)
        data += GREY.tobytes()
        usual = [(256, 3, 8), (257, 3, 6), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, pixels), (277, 3, 1)]
        entries = sorted([*usual, (278, 3, 6), (279, 4, GREY.size), *extra])
        packed = []
        for tag, kind, value in entries:
            length = len(value) if isinstance(value, bytes) else 1
            if isinstance(value, bytes):
                body = struct.pack(f"{order}{offset_form}", len(data)) if length > size else value.ljust(size, b"\0")
                data += value if length > size else b""
            else:
                body = struct.pack(f"{order}{'H' if kind == 3 else 'I'}", value).ljust(size, b"\0")
            packed.append(struct.pack(f"{order}HH{offset_form}", tag, kind, length) + body)
        data += bytes(len(data) % 2)
        data[link : link + size] = struct.pack(f"{order}{offset_form}", len(data))
        data += struct.pack(f"{order}{count_form}", len(entries)) + b"".join(packed)
        link = len(data)
        data += bytes(size)
    return bytes(data)


SEVERAL = {
    "TIFF": (saved("TIFF", PAGES), "5 images (a multi-page TIFF or a stack)"),
    "compressed TIFF": (saved("TIFF", PAGES, compression="tiff_lzw"), "5 images (a multi-page TIFF or a stack)"),
    "two pages": (saved("TIFF", PAGES[:2]), "2 images (a multi-page TIFF"),
    "big-endian TIFF": (tiff([[], [], []], ">"), "3 images (a multi-page TIFF"),
    "BigTIFF": (tiff([[], [], []], "<", big=True), "3 images (a multi-page TIFF"),
    "ImageJ": (
        tiff([[(270, 2, b"ImageJ=1.54f\nimages=20\nslices=20\n\0")]]),
        "20 images (a multi-page TIFF or a stack)",
    ),
    "tifffile": (tiff([[(270, 2, b'{"shape": [7, 6, 8]}\0')]]), "7 images (a multi-page TIFF or a stack)"),
    "deep": (tiff([[(32997, 3, 4)]]), "4 images (a multi-page TIFF or a stack)"),
    "GIF": (saved("GIF", PAGES), "5 images (an animated GIF)"),
    "PNG": (saved("PNG", PAGES), "5 images (an animated PNG)"),
    "PNG with another image first": (saved("PNG", PAGES, default_image=True), "5 images (an animated PNG)"),
    "WebP": (saved("WEBP", PAGES), "5 images (an animated WebP)"),
    "MPO": (saved("MPO", PAGES), "5 images (an MPO"),
    "PGM": (
        b"P5 8 6 255\n" + GREY.tobytes() + b"P5\n8 6 255\n" + GREY.tobytes(),
        "2 images (several images in one PNM",
    ),
    "16-bit PGM": ((b"P5 8 6 65535\n" + bytes(96)) * 2, "2 images (several images in one PNM"),
    "PBM": ((b"P4 8 6\n" + bytes(6)) * 3, "2 images (several images in one PNM"),
}

FORMS: dict[str, Callable[[bytes, Path], object]] = {
    "path": lambda data, path: path,
    "bytes": lambda data, path: data,
    "memoryview": lambda data, path: memoryview(data),
    "file object": lambda data, path: io.BytesIO(data),
}


@pytest.mark.parametrize("make", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize(("data", "words"), SEVERAL.values(), ids=SEVERAL)
def test_several_images_are_refused(
    data: bytes, words: str, make: Callable[[bytes, Path], object], tmp_path: Path
) -> None:
    path = tmp_path / "stack.tif"
    path.write_bytes(data)
    with pytest.raises(ImageError) as caught:
        read_image(make(data, path))
    assert f"holds {words}" in str(caught.value)
    assert "expected one image. Save the one you want as PNG" in str(caught.value)


def thumbnails(data: bytes) -> bytes:
    """An MPO whose second image is a thumbnail (CIPA DC-007, 5.2.3.3.1)."""
    at = data.index(b"MPF\0") + 4
    order = "<" if data[at : at + 2] == b"II" else ">"
    entries = data.index(struct.pack(f"{order}I", 0x030000), at + 20) + 16  # behind the directory
    changed = bytearray(data)
    changed[entries : entries + 4] = struct.pack(f"{order}I", 0x010001)
    return bytes(changed)


ONE = {
    "TIFF": saved("TIFF", PAGES[:1]),
    "BigTIFF": tiff([[]], big=True),
    "a TIFF with a preview": tiff([[], [(254, 4, 1)]]),
    "a TIFF with an old preview": tiff([[], [(255, 3, 2)]]),
    "a TIFF with a mask": tiff([[], [(254, 4, 4)]]),
    "a TIFF of one page of many": tiff([[(254, 4, 2)]]),
    "ImageJ": tiff([[(270, 2, b"ImageJ=1.54f\nunit=mm\n\0")]]),
    "tifffile": tiff([[(270, 2, b'{"shape": [6, 8]}\0')]]),
    "a description": tiff([[(270, 2, b"images=20\0")]]),
    "GIF": saved("GIF", PAGES[:1]),
    "PNG": saved("PNG", PAGES[:1]),
    "WebP": saved("WEBP", PAGES[:1]),
    "PGM": b"P5 8 6 255\n" + GREY.tobytes(),
    "PGM with a line behind it": b"P5 8 6 255\n" + GREY.tobytes() + b"\nPatient 7\n",
}


@pytest.mark.parametrize("data", ONE.values(), ids=ONE)
def test_one_image_is_read(data: bytes) -> None:
    assert np.array_equal(np.asarray(read_image(data).convert("L")), GREY)


def test_an_mpo_with_a_thumbnail_is_one_image() -> None:
    data = thumbnails(saved("MPO", PAGES[:2]))
    assert Image.open(io.BytesIO(data)).format == "MPO"
    assert read_image(data).size == (8, 6)


@pytest.mark.parametrize("form", ["TIFF", "GIF", "PNG", "WEBP"])
def test_pillows_image_of_a_stack(form: str) -> None:
    image = Image.open(io.BytesIO(saved(form, PAGES)))
    with pytest.raises(ImageError, match=r"the PIL image holds 5 images .* Pass image\.copy\(\) of the one you want"):
        read_image(image)
    image.seek(2)
    assert np.array_equal(np.asarray(read_image(image.copy()).convert("L")), np.asarray(PAGES[2]))


def test_a_chain_of_pages_that_never_ends() -> None:
    data = bytearray(tiff([[], []]))
    first = struct.unpack_from("<I", data, 4)[0]
    data[-4:] = struct.pack("<I", first)  # the last one points to the first
    with pytest.raises(ImageError, match="holds 2 images"):
        read_image(bytes(data))


def test_every_length_of_a_cut_off_stack() -> None:
    data = saved("TIFF", PAGES)
    for length in range(0, len(data), 7):
        with pytest.raises(ImageError):
            read_image(data[:length])


STACK = np.stack([np.roll(GREY, number) for number in range(5)])


@pytest.mark.parametrize(
    ("pixels", "options", "count"),
    [
        (STACK, {}, 5),
        (STACK, {"imagej": True}, 5),
        (STACK, {"imagej": True, "metadata": {"axes": "ZYX"}}, 5),
        (STACK, {"ome": True}, 5),
        (STACK, {"bigtiff": True}, 5),
        (STACK, {"byteorder": ">"}, 5),
        (STACK, {"truncate": True}, 5),
        (STACK, {"imagej": True, "truncate": True}, 5),
        (STACK, {"compression": "zlib"}, 5),
        (STACK, {"photometric": "minisblack", "volumetric": True, "tile": (16, 16, 16)}, 5),
        (np.stack([STACK] * 3, axis=-1), {"photometric": "rgb"}, 5),
        (STACK[:2], {"photometric": "minisblack"}, 2),
        (GREY, {}, 1),
        (GREY, {"imagej": True}, 1),
        (GREY, {"ome": True}, 1),
        (GREY[None], {}, 1),
        (np.stack([GREY] * 3, axis=-1), {"photometric": "rgb"}, 1),
        (np.stack([GREY] * 3), {"photometric": "rgb", "planarconfig": "separate"}, 1),
    ],
)
def test_what_tifffile_writes(pixels: np.ndarray, options: dict, count: int) -> None:
    tifffile = pytest.importorskip("tifffile")
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, **options)
    if count == 1:
        assert np.array_equal(np.asarray(read_image(buffer.getvalue()).convert("L")), GREY)
        return
    with pytest.raises(ImageError, match=f"holds {count} images|is not an image|starts like TIFF"):
        read_image(buffer.getvalue())
