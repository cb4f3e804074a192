"""The pixel contract, bit for bit against torchvision's own transforms, and what `InputSpec` refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from stageproof.runtime.errors import BundleError, InputError
from stageproof.runtime.preprocess import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    InputSpec,
    normalise,
    normalise_all,
    preprocess,
    resize,
)

GREY = InputSpec(224, 224, 1, (0.2956,), (0.3059,))
SPECS = [
    InputSpec.imagenet(224),
    InputSpec.imagenet(97, interpolation="bicubic"),
    InputSpec(180, 131, 3, (0.5, 0.25, 0.75), (0.5, 0.3, 0.21), "lanczos"),
    InputSpec(64, 200, 3, IMAGENET_MEAN, IMAGENET_STD, "nearest"),
    InputSpec(1, 1, 3, (0, 0, 0), (1, 1, 1)),
]


@pytest.fixture
def torch_on_one_thread() -> Iterator[None]:
    """On a busy machine torch's threads wait for each other longer than these small images take."""
    torch = pytest.importorskip("torch", reason="torchvision is the reference here")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def random_image(rng: np.random.Generator, colour: bool) -> Image.Image:
    """Noise over a gradient, 1 to 400 pixels a side: odd, even, smaller and larger than every target."""
    height, width = rng.integers(1, 401, 2)
    shape = (height, width, 3) if colour else (height, width)
    gradient = np.linspace(0, 200, height).reshape((height, 1, 1) if colour else (height, 1))
    return Image.fromarray((gradient + rng.integers(0, 56, shape)).astype(np.uint8))


def torchvision_array(image: Image.Image, spec: InputSpec) -> np.ndarray:
    """What torchvision makes of the image, by the transforms that published training scripts use."""
    transforms = pytest.importorskip("torchvision.transforms", reason="torchvision is the reference here")
    steps = [
        transforms.Resize((spec.height, spec.width), transforms.InterpolationMode(spec.interpolation)),
        transforms.ToTensor(),
        transforms.Normalize(spec.mean, spec.std),
    ]
    if spec.channels == 1:
        steps.insert(0, transforms.Grayscale(1))
    return transforms.Compose(steps)(image.convert("RGB")).numpy()


@pytest.mark.usefixtures("torch_on_one_thread")
@pytest.mark.parametrize("colour", [False, True], ids=["grey", "colour"])
@pytest.mark.parametrize("spec", [*SPECS, GREY], ids=lambda spec: f"{spec.channels}x{spec.height}x{spec.width}")
def test_equals_torchvision_bit_for_bit(spec: InputSpec, colour: bool) -> None:
    rng = np.random.default_rng(20240 + colour)
    for _ in range(42):
        image = random_image(rng, colour)
        array = preprocess(image, spec)
        assert array.dtype == np.float32
        assert array.shape == spec.shape
        assert array.flags.c_contiguous
        assert np.array_equal(array, torchvision_array(image, spec)), image.size


@pytest.mark.usefixtures("torch_on_one_thread")
@pytest.mark.parametrize("spec", [*SPECS, GREY], ids=lambda spec: f"{spec.channels}x{spec.height}x{spec.width}")
def test_an_image_of_the_models_size_stays_as_it_is(spec: InputSpec) -> None:
    rng = np.random.default_rng(20250)
    for shape in ((spec.height, spec.width), (spec.height, spec.width, 3)):
        image = Image.fromarray(rng.integers(0, 256, shape, np.uint8))
        before = np.array(image)
        np.testing.assert_array_equal(preprocess(image, spec), torchvision_array(image, spec))
        resize(image, spec)[:] = 0
        np.testing.assert_array_equal(image, before)


def test_the_comparison_sees_one_bit() -> None:
    """Guards the test above: one unit in the last place of one mean is a difference."""
    image = random_image(np.random.default_rng(3), colour=True)
    nudged = float(np.nextafter(np.float32(IMAGENET_MEAN[0]), np.float32(1)))
    spec = InputSpec(224, 224, 3, (nudged, *IMAGENET_MEAN[1:]), IMAGENET_STD)
    assert not np.array_equal(preprocess(image, spec), torchvision_array(image, InputSpec.imagenet(224)))


@pytest.mark.parametrize("spec", [InputSpec.imagenet(16), InputSpec(16, 16, 1, (0.1,), (0.3,))])
def test_every_pixel_value_is_normalised_as_torchvision_does(spec: InputSpec) -> None:
    image = Image.frombytes("L", (16, 16), bytes(range(256)))
    assert np.array_equal(preprocess(image, spec), torchvision_array(image, spec))


def test_an_image_of_the_right_size_is_not_resampled() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (31, 17), dtype=np.uint8)
    assert np.array_equal(resize(Image.fromarray(pixels), InputSpec(31, 17, 1, (0,), (1,))), pixels)


def test_grey_stays_single_until_it_is_normalised() -> None:
    spec = InputSpec.imagenet(8)
    pixels = resize(Image.new("L", (20, 30), 7), spec)
    assert pixels.shape == (8, 8)
    assert pixels.flags.writeable  # torch.from_numpy warns otherwise
    assert normalise(pixels, spec).shape == (3, 8, 8)


def test_colour_becomes_grey_by_luma_for_one_channel() -> None:
    pixels = resize(Image.new("RGB", (5, 5), (255, 0, 0)), InputSpec(2, 2, 1, (0,), (1,)))
    assert (pixels == 76).all()  # 0.299 * 255


def test_normalise_fills_a_row_of_a_batch() -> None:
    spec = InputSpec.imagenet(24)
    image = random_image(np.random.default_rng(1), colour=True)
    batch = np.full((2, *spec.shape), np.nan, np.float32)
    row = batch[1]
    assert normalise(resize(image, spec), spec, out=row) is row
    assert np.array_equal(batch[1], preprocess(image, spec))
    assert np.isnan(batch[0]).all()


SEVERAL = [InputSpec.imagenet(24), InputSpec.imagenet(200), InputSpec(24, 20, 1, (0.1,), (0.3,))]


@pytest.mark.parametrize("spec", SEVERAL)
@pytest.mark.parametrize("count", [0, 1, 9])
def test_several_are_normalised_to_the_bit_as_one_is(spec: InputSpec, count: int) -> None:
    rng = np.random.default_rng(5)
    images = [resize(random_image(rng, colour=number % 4 == 1), spec) for number in range(count)]
    rows = np.full((count + 1, *spec.shape), np.nan, np.float32)
    normalise_all(images, spec, rows)
    assert all(np.array_equal(row, normalise(image, spec)) for row, image in zip(rows, images, strict=False))
    assert np.isnan(rows[count:]).all()


def test_results_are_independent_of_each_other() -> None:
    spec = InputSpec.imagenet(8)
    first = preprocess(Image.new("L", (8, 8), 10), spec)
    kept = first.copy()
    first_again = preprocess(Image.new("L", (8, 8), 10), spec)
    first += 1
    assert np.array_equal(first_again, kept)


@pytest.mark.parametrize("mode", ["RGBA", "P", "I;16", "F", "1"])
def test_modes_that_read_image_never_gives_are_refused(mode: str) -> None:
    with pytest.raises(InputError, match=rf"mode {mode}; expected L or RGB.*read_image"):
        preprocess(Image.new(mode, (4, 4)), InputSpec.imagenet(4))


@pytest.mark.parametrize(
    ("pixels", "spec", "match"),
    [
        (np.zeros((4, 4), np.float32), InputSpec.imagenet(4), r"pixels is float32 \(4, 4\); expected uint8"),
        (np.zeros((5, 4), np.uint8), InputSpec.imagenet(4), r"pixels is uint8 \(5, 4\)"),
        (np.zeros((3, 4, 4), np.uint8), InputSpec.imagenet(4), r"expected uint8 \(4, 4\) or \(4, 4, 3\)"),
        (np.zeros((4, 4, 3), np.uint8), InputSpec(4, 4, 1, (0,), (1,)), r"expected uint8 \(4, 4\)\."),
    ],
)
def test_normalise_refuses_other_pixels(pixels: np.ndarray, spec: InputSpec, match: str) -> None:
    with pytest.raises(InputError, match=match):
        normalise(pixels, spec)


@pytest.mark.parametrize("out", [np.empty((3, 4, 4)), np.empty((3, 4, 5), np.float32), np.empty((4, 4), np.float32)])
def test_normalise_refuses_another_out(out: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"out is .*; expected float32 \(3, 4, 4\)"):
        normalise(np.zeros((4, 4), np.uint8), InputSpec.imagenet(4), out=out)


@pytest.mark.parametrize("spec", [*SPECS, GREY, InputSpec(3, 5, 1, (1 / 3,), (0.1 + 0.2,))])
def test_round_trip_through_json_is_exact(spec: InputSpec) -> None:
    data = spec.to_dict()
    assert json.loads(json.dumps(data)) == data
    assert InputSpec.from_dict(json.loads(json.dumps(data))) == spec


def test_lists_and_numpy_numbers_become_plain_and_hashable() -> None:
    spec = InputSpec(np.int64(4), 4, 1, [np.float32(0.5)], [1])  # type: ignore[arg-type]
    assert spec == InputSpec(4, 4, 1, (0.5,), (1.0,))
    assert hash(spec) == hash(InputSpec(4, 4, 1, (0.5,), (1.0,)))
    assert json.dumps(spec.to_dict())


def test_imagenet_spec() -> None:
    spec = InputSpec.imagenet(224)
    assert spec == InputSpec(224, 224, 3, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bilinear")
    assert spec.shape == (3, 224, 224)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"height": 0}, "height is 0; expected an integer of at least 1"),
        ({"width": 2.0}, r"width is 2\.0"),
        ({"height": True}, "height is True"),
        ({"height": "224"}, "height is '224'"),
        ({"channels": 2}, r"channels is 2; expected 1 \(grey\) or 3 \(colour\)"),
        ({"mean": (0.5,)}, r"mean is \(0\.5,\); expected 3 numbers"),
        ({"mean": 0.5}, r"mean is 0\.5; expected 3 numbers"),
        ({"mean": (0, 0, float("nan"))}, "mean is .*finite"),
        ({"mean": (0, 0, "0")}, "mean is .*finite"),
        ({"std": (1, 1, float("inf"))}, "std is .*finite"),
        ({"std": (1, 1, 1e40)}, "std is .*finite numbers that fit float32"),
        ({"std": (1, 1, 0)}, "std is .*above zero"),
        ({"std": (1, 1, -1)}, "std is .*above zero"),
        ({"std": (1, 1, 1e-50)}, "std is .*above zero"),
        ({"interpolation": "area"}, "interpolation is 'area'; expected one of nearest, bilinear, bicubic, lanczos"),
        ({"interpolation": ["bilinear"]}, "interpolation is"),
    ],
)
def test_values_that_make_no_sense_are_refused(changes: dict, match: str) -> None:
    data = {**InputSpec.imagenet(224).to_dict(), **changes}
    with pytest.raises(InputError, match=match):
        InputSpec(**data)
    with pytest.raises(BundleError, match=f"input spec is not valid: {match}"):
        InputSpec.from_dict(data)


def test_unknown_and_missing_keys_are_named() -> None:
    data = InputSpec.imagenet(224).to_dict()
    del data["mean"], data["interpolation"]
    with pytest.raises(BundleError, match="unknown keys: crop, gamma; missing keys: interpolation, mean"):
        InputSpec.from_dict({**data, "gamma": 1, "crop": 2})
