"""How DICOM is shown: the display pipeline in the standard's order, and what is said beside it."""

from __future__ import annotations

import numpy as np
import pytest

from stageproof.runtime import ImageError, Predictor
from stageproof.runtime.dicom.display import window
from stageproof.runtime.images.reader import read, read_all
from tests.runtime.dicoms import RAMP, SHIPPED, Dataset, dataset, encoded, lut, shown


def test_without_a_window_the_whole_range_is_shown() -> None:
    pixels, picture = shown(dataset())
    assert np.array_equal(pixels, np.rint(RAMP / 3780 * 255))
    assert picture.transforms == ("no VOI stated: 0 to 3780",)
    assert picture.warnings == ()


def test_rescale_then_window() -> None:
    """C.11.2.1.2.1: y = ((x - (c - 0.5)) / (w - 1) + 0.5), of rescaled x."""
    pixels, picture = shown(dataset(RescaleSlope=2, RescaleIntercept=-1000, WindowCenter=1000, WindowWidth=2001))
    expected = np.clip((RAMP * 2.0 - 1000 - 999.5) / 2000 + 0.5, 0, 1) * 255
    assert np.array_equal(pixels, np.rint(expected))
    assert picture.transforms == ("rescale 2 x + -1000", "window 1000 ± 1000.5 LINEAR")


def test_inversion_comes_last() -> None:
    """Inverted before the window, the stored values would pass through another part of it."""
    elements = {"RescaleSlope": 1, "RescaleIntercept": 100, "WindowCenter": 500, "WindowWidth": 800}
    plain, _ = shown(dataset(**elements))
    inverted, picture = shown(dataset(PhotometricInterpretation="MONOCHROME1", **elements))
    assert np.array_equal(inverted, 255 - plain)
    assert picture.transforms[-1] == "MONOCHROME1 inverted"


def test_modality_lut_then_voi_lut() -> None:
    stored = np.arange(8, dtype=np.uint16).reshape(2, 4)
    modality = lut([70, 60, 50, 40, 30, 20, 10, 0], 0, 16)
    voi = lut([*range(0, 256, 51)], 10, 8)  # six entries for the values 10 to 15, the ends going on outside
    made = dataset(stored, ModalityLUTSequence=[modality], VOILUTSequence=[voi], WindowCenter=1, WindowWidth=2)
    pixels, picture = shown(made)
    expected = [(0, 51, 102, 153, 204, 255)[min(max(value - 10, 0), 5)] for value in range(70, -1, -10)]
    assert pixels.ravel().tolist() == expected
    assert picture.transforms == ("modality LUT", "VOI LUT")


@pytest.mark.parametrize(
    ("function", "values"),
    [
        ("LINEAR", [0, 0, 128 / 255, 1, 1]),
        ("LINEAR_EXACT", [0, 0, 0.5, 1, 1]),
        ("SIGMOID", [1 / (1 + np.exp(8)), 1 / (1 + np.exp(2)), 0.5, 1 / (1 + np.exp(-2)), 1 / (1 + np.exp(-8))]),
    ],
)
def test_voi_functions(function: str, values: list[float]) -> None:
    """At c - 2w, c - w/2, c, c + w/2, c + 2w for c = 2048, w = 256."""
    got = window(np.array([1536.0, 1920.0, 2048.0, 2176.0, 2560.0]), 2048, 256, function)
    assert got == pytest.approx(values, abs=1e-9)


def test_a_window_of_one_is_a_threshold() -> None:
    assert window(np.array([9.0, 9.5, 9.6, 11.0]), 10, 1).tolist() == [0, 0, 1, 1]


def test_signed_and_padded() -> None:
    stored = np.array([[-2000, -2000], [0, 1000]], np.int16)
    pixels, picture = shown(dataset(stored, PixelPaddingValue=-2000))
    assert pixels.tolist() == [[0, 0], [0, 255]]
    assert picture.transforms == ("no VOI stated: 0 to 1000", "padding black")
    inverted, _ = shown(dataset(stored, PixelPaddingValue=-2000, PhotometricInterpretation="MONOCHROME1"))
    assert inverted.tolist() == [[0, 0], [255, 0]]


def test_what_makes_it_another_thing_is_reported() -> None:
    coronal = [1, 0, 0, 0, 0, -1]
    made = dataset(Modality="CT", ImageOrientationPatient=coronal, BurnedInAnnotation="YES")
    assert read(encoded(made)).warnings == (
        "the modality is CT; the model was trained on MR",
        "the orientation is coronal; the model was trained on axial slices",
        "text is burned into the pixels (BurnedInAnnotation) and may name the patient",
    )
    unstated = read(encoded(dataset(Modality=None, ImageOrientationPatient=None)))
    assert [warning.split(";")[0] for warning in unstated.warnings] == [
        "the modality is not stated",
        "the orientation is not stated",
    ]


@pytest.mark.parametrize(
    ("orientation", "name"),
    [
        ([1, 0, 0, 0, 1, 0], None),
        ([0, 1, 0, -1, 0, 0], None),
        ([1, 0, 0, 0, 0.95, 0.31], None),  # tilted by 18 degrees, as along the bicommissural line
        ([0, 1, 0, 0, 0, -1], "sagittal"),
        ([0.7071, 0.7071, 0, 0, 0, -1], "oblique"),
        ([0, 0, 0, 0, 0, 0], "oblique"),
    ],
)
def test_orientation(orientation: list[float], name: str | None) -> None:
    warnings = read(encoded(dataset(ImageOrientationPatient=orientation))).warnings
    assert (f"the orientation is {name}; the model was trained on axial slices" in warnings) == (name is not None)
    assert len(warnings) == (name is not None)


def test_multi_frame_with_functional_groups() -> None:
    frames = np.stack([RAMP, RAMP + 100, RAMP * 2])
    made = dataset(frames, NumberOfFrames=3)
    groups = []
    for slope in (1, 2, 3):
        transformation, voi, group = Dataset(), Dataset(), Dataset()
        transformation.RescaleSlope, transformation.RescaleIntercept = slope, 0
        voi.WindowCenter, voi.WindowWidth = 1000, 2000
        group.PixelValueTransformationSequence, group.FrameVOILUTSequence = [transformation], [voi]
        groups.append(group)
    made.PerFrameFunctionalGroupsSequence = groups
    pictures = read_all(encoded(made))
    for slope, frame, picture in zip((1, 2, 3), frames, pictures, strict=True):
        expected = np.clip((frame * float(slope) - 999.5) / 1999 + 0.5, 0, 1) * 255
        assert np.array_equal(np.asarray(picture.image), np.rint(expected))
    with pytest.raises(ImageError, match=r"has 3 frames; expected one image\. Pass it to predict_study"):
        read(encoded(made))


def test_a_study_takes_every_frame(onnx_predictor: Predictor) -> None:
    frames = np.stack([RAMP, RAMP.T, RAMP[::-1]]).astype(np.uint16)
    source = encoded(dataset(np.ascontiguousarray(frames), NumberOfFrames=3))
    study = onnx_predictor.predict_study([source])
    assert len(study.slices) == 3
    alone = [onnx_predictor.predict(picture) for picture in read_all(source)]
    assert [one.probabilities["MildDemented"] for one in study.slices] == pytest.approx(
        [one.probabilities["MildDemented"] for one in alone], abs=1e-5
    )


def test_no_preamble() -> None:
    whole = encoded(dataset())
    assert np.array_equal(np.asarray(read(whole[132:]).image), np.asarray(read(whole).image))


def test_compressed_is_the_same_pixels() -> None:
    made = dataset()
    plain, _ = shown(made)
    made.compress("1.2.840.10008.1.2.5")  # RLE Lossless
    assert np.array_equal(shown(made)[0], plain)


@pytest.mark.filterwarnings("default:The pixel data is 8320 bytes long")
def test_the_lossless_files_of_pydicom_agree() -> None:
    """The same MR slice as little endian, big endian, implicit, RLE, JPEG 2000 and JPEG-LS."""
    files = [path for path in SHIPPED if path.name.startswith("MR_small")]
    assert len(files) >= 8
    images = [np.asarray(read(path).image) for path in files]
    assert all(np.array_equal(image, images[0]) for image in images)
