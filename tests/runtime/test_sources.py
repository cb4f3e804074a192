"""Every kind of source that `read_image` takes, and what it says of those it does not."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stageproof.runtime.errors import ImageError
from stageproof.runtime.headers.limits import MAX_FILE_BYTES
from stageproof.runtime.images.raster import read_image

# (6, 8) uint8, no symmetry, so that a flipped or rotated result cannot pass for the right one.
GREY = np.random.default_rng(11).integers(0, 256, (6, 8), dtype=np.uint8)
COLOUR = np.random.default_rng(12).integers(0, 256, (6, 8, 3), dtype=np.uint8)


def encode(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def assert_pixels(image: Image.Image, expected: np.ndarray) -> None:
    assert type(image) is Image.Image
    assert image.mode == ("L" if expected.ndim == 2 else "RGB")
    assert image.info == {}
    assert np.array_equal(np.asarray(image), expected)


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
    with pytest.raises(ImageError, match=r"returned str, expected bytes\. Open it in mode 'rb'"):
        read_image(io.StringIO("text"))
    closed = io.BytesIO(b"x")
    closed.close()
    with pytest.raises(ImageError, match="cannot be read"):
        read_image(closed)


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
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    path = tmp_path / "scan.png"
    path.write_bytes(b"x")
    monkeypatch.setattr(os, "open", refuse)  # root, as in CI containers, may read everything
    with pytest.raises(ImageError, match="may not be read by this user"):
        read_image(path)


def test_a_file_too_large_to_be_one_slice(tmp_path: Path) -> None:
    path = tmp_path / "huge.tif"
    with path.open("wb") as stream:
        stream.truncate(MAX_FILE_BYTES + 1)  # sparse
    with pytest.raises(ImageError, match=f"has {MAX_FILE_BYTES + 1} bytes; at most {MAX_FILE_BYTES}"):
        read_image(path)


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
        (GREY.astype(np.uint16)[..., None], "uint16 of shape"),
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
