"""What is given where several images are expected: checked by the call, before anything is taken from it."""

from __future__ import annotations

import array
import io
import mmap
from collections import deque
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stageproof.runtime import AuditError, InputError, Predictor
from stageproof.runtime.__main__ import main
from stageproof.runtime.inference.arguments import check_slices, several

GREY, COLOUR = np.zeros((40, 30), np.uint8), np.zeros((40, 30, 3), np.uint8)


class Upload:
    """What web frameworks hand over."""

    def read(self) -> bytes:
        return b""

    def __iter__(self):
        raise AssertionError("its lines were iterated")


class Tensor:
    """What torch, JAX and others call an array."""

    def __dlpack__(self) -> None: ...

    def __iter__(self):
        return iter([GREY])


class Stream:
    async def __aiter__(self):
        yield b""


ONE = {
    "str": "scan.jpg",
    "bytes": b"\x89PNG",
    "bytearray": bytearray(b"\x89PNG"),
    "PosixPath": Path("scan.jpg"),
    "memoryview": memoryview(b"\x89PNG"),
    "array": array.array("B", b"\x89PNG"),
    "mmap": lambda: mmap.mmap(-1, 16),
    "BytesIO": lambda: io.BytesIO(b"x"),
    "a file": lambda: Path(__file__).open("rb"),  # noqa: SIM115
    "a file of text": lambda: Path(__file__).open(encoding="utf-8"),  # noqa: SIM115
    "an upload": Upload,
    "PIL": lambda: Image.new("L", (8, 8)),
    "grey": GREY,
    "colour": COLOUR,
    "one channel": GREY[..., None],
}


@pytest.mark.parametrize("kind", list(ONE))
def test_one_image_is_refused_by_the_call(onnx_predictor: Predictor, kind: str) -> None:
    one = ONE[kind]() if callable(ONE[kind]) else ONE[kind]
    for use in (onnx_predictor.stream, onnx_predictor.predict_batch):
        with pytest.raises(InputError, match=r"expected several\. Use predict\(\) for one image, or pass \[images\]"):
            use(one)
    if hasattr(one, "close"):
        one.close()


@pytest.mark.parametrize(
    ("images", "match"),
    [
        ({"a.png": b""}, r"a mapping, expected several images\. Pass its values: list\(images\.values\(\)\)"),
        ({"a.png", "b.png"}, r"a set, which has no order.*Pass sorted\(images\), or a list"),
        (frozenset(), "a set, which has no order"),
        (Tensor(), r"Tensor, expected several images\. Pass uint8 numpy arrays"),
        (np.zeros((3, 40, 30), np.uint8), r"one colour image with its channels first, or three grey ones"),
        (np.zeros(40, np.uint8), r"array of uint8 \(40,\), expected several images"),
        (np.zeros((2, 2, 2, 2, 2)), "expected several images"),
        (np.array(3), r"expected several images: \(N, H, W\)"),
        (None, "images is NoneType, expected several images: a list"),
        (7, "images is int, expected several images"),
        (Stream(), "images is Stream, expected several images"),
        (list, "images is type, expected several images"),
    ],
)
def test_what_holds_no_images_in_order_is_refused_by_the_call(onnx_predictor: Predictor, images: object, match) -> None:
    for use in (onnx_predictor.stream, onnx_predictor.predict_batch, onnx_predictor.predict_study):
        with pytest.raises(InputError, match=match):
            use(images)


class Sequence:
    """The old protocol."""

    def __getitem__(self, at: int) -> np.ndarray:
        return [GREY, GREY][at]


MANY = {
    "list": [GREY, GREY],
    "tuple": (GREY, GREY),
    "generator": lambda: (image for image in [GREY, GREY]),
    "deque": deque([GREY, GREY]),
    "keys": {"a.png": 0, "b.png": 1}.keys(),
    "values": {1: GREY, 2: GREY}.values(),
    "the old protocol": Sequence(),
    "a stack": np.zeros((2, 40, 30), np.uint8),
    "a stack of colour": np.zeros((2, 40, 30, 3), np.uint8),
    "three of colour": np.zeros((3, 40, 30, 3), np.uint8),
    "paths": np.array(["a.png", "b.png"]),
    "objects": np.array([Path("a.png"), b""], object),
    "nothing": [],
}


@pytest.mark.parametrize("kind", list(MANY))
def test_several_are_taken_as_they_are(kind: str) -> None:
    images = MANY[kind]() if callable(MANY[kind]) else MANY[kind]
    assert several(images) is images
    assert check_slices(images) is images


@pytest.mark.parametrize("kind", [kind for kind in ONE if kind not in ("array", "mmap", "a file of text")])
def test_one_file_or_image_is_all_slices_of_its_study(kind: str) -> None:
    one = ONE[kind]() if callable(ONE[kind]) else ONE[kind]
    assert check_slices(one) == [one]
    if hasattr(one, "close"):
        one.close()


def test_a_study_of_one_file_object(onnx_predictor: Predictor, scan: Path) -> None:
    with scan.open("rb") as file:
        assert onnx_predictor.predict_study(file).used == (0,)
    assert onnx_predictor.predict_study(memoryview(scan.read_bytes())).used == (0,)


def test_nothing_is_taken_before_the_first_prediction(onnx_predictor: Predictor) -> None:
    taken = []
    stream = onnx_predictor.stream(taken.append(image) or image for image in [GREY] * 3)
    assert taken == []
    assert len(list(stream)) == 3


@pytest.mark.parametrize("name", ["audit", "audit_key", "tune"])
def test_nothing_is_written_into_the_bundle(bundle: Path, name: str) -> None:
    with pytest.raises(InputError, match=f"{name} is .*inside the bundle .* Give a path elsewhere"):
        Predictor(bundle, **{name: bundle / "golden" / "file"})


def test_results_are_not_written_into_the_bundle(bundle: Path, scan: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["--bundle", str(bundle), str(scan), "--output", str(bundle / "out.csv")]) == 2
    assert "--output is " in capsys.readouterr().err
    assert not (bundle / "out.csv").exists()


def test_a_log_that_cannot_be_written_is_said_before_an_engine_is_loaded(bundle: Path, monkeypatch) -> None:
    monkeypatch.setattr("runtime.predictor.open_bundle", lambda *given: pytest.fail("an engine was loaded"))
    with pytest.raises(AuditError, match="not a regular file"):
        Predictor(bundle, audit="/dev/full")
