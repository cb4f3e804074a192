"""Rescale, window, padding and inversion, over their whole ranges, against the standard's formulas written plainly."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from stageproof.runtime import ImageError
from stageproof.runtime.images.reader import read
from tests.runtime.dicoms import RAMP, Dataset, dataset, encoded, lut, shown

STORED = np.arange(-32, 32, dtype=np.int16).reshape(8, 8) * 63


def voi(x: float, centre: float, width: float, function: str) -> float:
    """PS3.3 C.11.2.1.2.1 (LINEAR), C.11.2.1.3.1 (SIGMOID), C.11.2.1.3.2 (LINEAR_EXACT), on a scale of 0 to 1."""
    if function == "SIGMOID":
        return 1 / (1 + np.exp(-4 * (x - centre) / width))
    if function == "LINEAR_EXACT":
        if x <= centre - width / 2:
            return 0.0
        return 1.0 if x > centre + width / 2 else (x - centre) / width + 0.5
    if x <= centre - 0.5 - (width - 1) / 2:
        return 0.0
    if x > centre - 0.5 + (width - 1) / 2:
        return 1.0
    return (x - (centre - 0.5)) / (width - 1) + 0.5


@pytest.mark.parametrize("slope", [1, 0.0001, 0.37, 5, -2])
@pytest.mark.parametrize("function", [None, "LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_windows_of_every_width(slope: float, function: str | None) -> None:
    for intercept, share, place in itertools.product((0, -3.5), (0.02, 0.5, 1, 3), (0.2, 0.5)):
        values = STORED.astype(float) * slope + intercept
        width = float(f"{share * np.ptp(values):.10g}")
        centre = float(f"{values.min() + place * np.ptp(values):.10g}")
        elements = {"VOILUTFunction": function} if function else {}
        made = dataset(
            STORED, RescaleSlope=slope, RescaleIntercept=intercept, WindowCenter=centre, WindowWidth=width, **elements
        )
        used = function or "LINEAR"
        if used == "LINEAR" and width < 1:
            used = "LINEAR_EXACT"
        expected = np.array([voi(x, centre, width, used) for x in values.ravel()]).reshape(8, 8) * 255
        pixels, picture = shown(made)
        assert np.abs(pixels - expected).max() <= 0.5 + 1e-6, (intercept, width, centre)
        assert picture.transforms[-1].endswith(used)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("slope", [1, 0.5, 3])
def test_pydicom_agrees(function: str, slope: float) -> None:
    from pydicom.pixels import apply_rescale, apply_windowing

    for centre, width in ((0, 900), (100, 2), (-700, 3000)):
        made = dataset(STORED, RescaleSlope=slope, RescaleIntercept=-9, WindowCenter=centre, WindowWidth=width)
        made.VOILUTFunction = function
        with np.errstate(over="ignore"):
            theirs = apply_windowing(apply_rescale(STORED, made), made)
        low, high = (-(2**15) * slope - 9, (2**15 - 1) * slope - 9)  # pydicom's own output range
        ours = shown(made)[0]
        assert np.abs(ours - (theirs - low) / (high - low) * 255).max() <= 0.51


def test_the_case_that_was_all_white() -> None:
    """RescaleSlope 0.0001 with WindowWidth 0.306: LINEAR has no width below 1."""
    made = dataset(RescaleSlope=0.0001, RescaleIntercept=0, WindowCenter=0.189, WindowWidth=0.306)
    pixels, picture = shown(made)
    assert np.unique(pixels).size > 50
    assert picture.transforms == ("rescale 0.0001 x + 0", "window 0.189 ± 0.153 LINEAR_EXACT")


def test_a_width_of_one() -> None:
    """A threshold between whole numbers; between values that lie closer, it is a range of them."""
    whole, _ = shown(dataset(WindowCenter=1000, WindowWidth=1))
    assert np.array_equal(whole, np.where(RAMP > 999.5, 255, 0))
    close, picture = shown(dataset(RescaleSlope=1 / 3780, RescaleIntercept=0, WindowCenter=0.5, WindowWidth=1))
    assert np.array_equal(close, np.rint(RAMP / 3780 * 255))
    assert picture.transforms[-1] == "window 0.5 ± 0.5 LINEAR_EXACT"
    assert not picture.warnings
    narrow = read(encoded(dataset(RescaleSlope=1 / 3780, RescaleIntercept=0, WindowCenter=0.5, WindowWidth=1.2)))
    assert "the window is 1.2 wide for values in steps of 0.00026455" in narrow.warnings[-1]


@pytest.mark.parametrize(
    ("elements", "note"),
    [
        ({"WindowCenter": 100, "WindowWidth": 0}, "the stated window has no width above 0"),
        ({"WindowCenter": 100, "WindowWidth": -50}, "the stated window has no width above 0"),
        ({"WindowCenter": 100}, "the stated window has no width"),
        ({"WindowWidth": 100}, "the stated window has no centre"),
        ({"WindowCenter": [1, 2], "WindowWidth": [0, -1]}, "the stated window has no width above 0"),
    ],
)
def test_a_window_that_is_none_shows_everything_and_says_so(elements: dict, note: str) -> None:
    pixels, picture = shown(dataset(**elements))
    assert np.array_equal(pixels, np.rint(RAMP / 3780 * 255))
    assert picture.warnings == (f"{note}; the whole range of values is shown",)


def test_of_several_windows_the_first_that_is_one() -> None:
    several, _ = shown(dataset(WindowCenter=[1000, 50], WindowWidth=[800, 10]))
    assert np.array_equal(several, shown(dataset(WindowCenter=1000, WindowWidth=800))[0])
    second, _ = shown(dataset(WindowCenter=[5, 1000], WindowWidth=[0, 800]))
    assert np.array_equal(second, several)


def test_an_unknown_function_counts_as_linear_and_is_said_but_not_repeated() -> None:
    stated = {"WindowCenter": 1000, "WindowWidth": 800}
    pixels, picture = shown(dataset(VOILUTFunction="DOE_JANE", **stated))
    assert np.array_equal(pixels, shown(dataset(**stated))[0])
    assert picture.warnings == ("VOILUTFunction is none that DICOM defines; LINEAR was used",)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("shape", [None, "IDENTITY", "INVERSE"])
def test_inverted_once(photometric: str, shape: str | None) -> None:
    elements = {"PresentationLUTShape": shape} if shape else {}
    pixels, picture = shown(dataset(PhotometricInterpretation=photometric, **elements))
    plain = np.rint(RAMP / 3780 * 255)
    inverted = photometric == "MONOCHROME1" or shape == "INVERSE"
    assert np.array_equal(pixels, 255 - plain if inverted else plain)
    assert sum("inverted" in done for done in picture.transforms) == inverted


def test_either_part_of_a_rescale_alone() -> None:
    window = {"WindowCenter": 2000, "WindowWidth": 3000}
    slope, _ = shown(dataset(RescaleSlope=2, **window))
    assert np.array_equal(slope, shown(dataset(RescaleSlope=2, RescaleIntercept=0, **window))[0])
    intercept, _ = shown(dataset(RescaleIntercept=-500, **window))
    assert np.array_equal(intercept, shown(dataset(RescaleSlope=1, RescaleIntercept=-500, **window))[0])


def test_a_slope_of_zero_is_not_applied() -> None:
    pixels, picture = shown(dataset(RescaleSlope=0, RescaleIntercept=7))
    assert np.array_equal(pixels, np.rint(RAMP / 3780 * 255))
    assert picture.warnings == ("RescaleSlope is 0, which would make every pixel the same; it was not applied",)


def test_constant_pixels_are_black() -> None:
    assert not shown(dataset(np.full((4, 4), 700, np.uint16)))[0].any()


PADDING = [(-2000, None), (-2000, -1000), (-1000, -2000), (1500, 2016), (-2016, 1900), (0, 0)]


@pytest.mark.parametrize(("value", "limit"), PADDING)
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("signed", [False, True])
def test_the_whole_range_of_padding_is_background(
    value: int, limit: int | None, photometric: str, signed: bool
) -> None:
    """PS3.3 C.7.5.1.1.2: from the value to the limit, both included, whichever is larger."""
    stored = STORED if signed else (STORED + 2016).astype(np.uint16)
    offset = 0 if signed else 2016
    elements: dict = {"PixelPaddingValue": value + offset if value + offset >= 0 or signed else 16}
    if limit is not None:
        elements["PixelPaddingRangeLimit"] = limit + offset
    ends = sorted(
        [elements["PixelPaddingValue"], elements.get("PixelPaddingRangeLimit", elements["PixelPaddingValue"])]
    )
    padding = (stored >= ends[0]) & (stored <= ends[1])
    pixels, picture = shown(dataset(stored, PhotometricInterpretation=photometric, **elements))
    inside = stored[~padding].astype(float)
    expected = np.rint((stored - inside.min()) / (inside.max() - inside.min()) * 255) if np.ptp(inside) else stored * 0
    expected = 255 - expected if photometric == "MONOCHROME1" else expected
    assert np.array_equal(pixels, np.where(padding, 0, expected))
    assert ("padding black" in picture.transforms) == bool(padding.any())


@pytest.mark.parametrize(("bits", "written"), [(16, 65536 - 2016), (12, 65536 - 2016), (12, 4096 - 2016)])
def test_padding_written_as_unsigned_for_signed_pixels(bits: int, written: int) -> None:
    made = dataset(STORED, BitsStored=bits, HighBit=bits - 1)
    made.add_new("PixelPaddingValue", "US", written)
    pixels, picture = shown(made)
    assert picture.transforms == (f"no VOI stated: {-2016 + 63} to {31 * 63}", "padding black")
    assert pixels[0, 0] == 0


def test_an_image_of_padding_alone_is_background() -> None:
    blank = np.full((4, 4), 9, np.uint16)
    for photometric in ("MONOCHROME1", "MONOCHROME2"):
        assert not shown(dataset(blank, PixelPaddingValue=9, PhotometricInterpretation=photometric))[0].any()


def test_floating_point_pixels() -> None:
    values = np.linspace(-0.5, 2.0, 64, dtype=np.float32).reshape(8, 8)
    values[0, 0] = np.nan
    made = dataset(RAMP, BitsAllocated=32, BitsStored=None, HighBit=None, PixelRepresentation=None, PixelData=None)
    made.FloatPixelData = values.tobytes()
    with pytest.raises(ImageError, match="pixels that are not finite numbers"):
        read(encoded(made))
    made.FloatPixelPaddingValue = float("nan")
    pixels, picture = shown(made)
    inside = values.ravel()[1:].astype(float)
    assert np.array_equal(pixels.ravel()[1:], np.rint((inside - inside.min()) / np.ptp(inside) * 255))
    assert pixels[0, 0] == 0
    assert picture.transforms[-1] == "padding black"


@pytest.mark.parametrize("first", [-100, 0, 500])
@pytest.mark.parametrize("form", ["words", "bytes of words", "packed bytes"])
@pytest.mark.parametrize("entries_bits", [8, 12])
def test_voi_tables(first: int, form: str, entries_bits: int) -> None:
    if form == "packed bytes" and entries_bits > 8:
        pytest.skip("one byte holds 8 bits")
    table = np.random.default_rng(3).integers(0, 1 << entries_bits, 200)
    table[0] = (1 << entries_bits) - 1
    item = lut([int(entry) for entry in table], first, entries_bits)
    item["LUTDescriptor"].VR = "SS" if first < 0 else "US"
    if form != "words":
        del item.LUTData
        item.add_new("LUTData", "OW", table.astype("<u2" if form == "bytes of words" else np.uint8).tobytes())
    pixels, picture = shown(dataset(STORED, VOILUTSequence=[item]))
    places = np.clip(STORED.astype(int) - first, 0, 199)
    assert np.array_equal(pixels, np.rint(table[places] / ((1 << entries_bits) - 1) * 255))
    assert picture.transforms == ("VOI LUT",)


def test_a_first_entry_written_as_unsigned() -> None:
    item = lut(list(range(256)), 0, 8)
    del item.LUTDescriptor
    item.add_new("LUTDescriptor", "US", [256, 65536 - 100, 8])
    pixels, _ = shown(dataset(STORED, VOILUTSequence=[item]))
    assert np.array_equal(pixels, np.clip(STORED.astype(int) + 100, 0, 255))


def test_pydicom_agrees_on_tables() -> None:
    from pydicom.pixels import apply_modality_lut, apply_voi

    stored = np.arange(64, dtype=np.uint16).reshape(8, 8)
    made = dataset(stored, ModalityLUTSequence=[lut([int(v * v) for v in range(50)], 5, 16)])
    made.VOILUTSequence = [lut([int(v * 16) for v in range(256)], 100, 12)]
    theirs = apply_voi(apply_modality_lut(stored, made).astype(np.int64), made)
    assert np.array_equal(shown(made)[0], np.rint(theirs / 4095 * 255))


def test_a_table_of_65536_entries() -> None:
    item = lut([0], 0, 8)
    item.LUTDescriptor = [0, 0, 8]
    del item.LUTData
    item.add_new("LUTData", "OW", (np.arange(65536) >> 8).astype("<u2").tobytes())
    stored = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1040
    assert np.array_equal(shown(dataset(stored, VOILUTSequence=[item]))[0], stored >> 8)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"LUTData": None}, "has a VOILUTSequence without its data"),
        ({"LUTDescriptor": None}, "has a VOILUTSequence without its descriptor"),
        ({"LUTDescriptor": [300, 0, 8]}, "whose descriptor and data do not fit together"),
        ({"LUTDescriptor": [256, 0, 99]}, "whose descriptor and data do not fit together"),
    ],
)
def test_tables_that_are_none(change: dict, match: str) -> None:
    item = lut(list(range(256)), 0, 8)
    for name, value in change.items():
        if value is None:
            delattr(item, name)
        else:
            setattr(item, name, value)
    with pytest.raises(ImageError, match=match):
        read(encoded(dataset(VOILUTSequence=[item])))


def test_each_frame_has_its_own_table() -> None:
    frames = np.stack([RAMP, RAMP])
    made = dataset(frames, NumberOfFrames=2, VOILUTSequence=[lut([0, 255], 1000, 8)])
    shared = Dataset()
    transformation = Dataset()
    transformation.RescaleSlope, transformation.RescaleIntercept = 1, 0
    shared.PixelValueTransformationSequence = [transformation]
    made.SharedFunctionalGroupsSequence = [shared]
    from stageproof.runtime.images.reader import read_all

    for picture in read_all(encoded(made)):
        assert np.array_equal(np.asarray(picture.image), np.where(RAMP > 1000, 255, 0))
