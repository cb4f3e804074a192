"""Elements that are missing, and elements that are there without a value: the same, by name, wherever it matters."""

from __future__ import annotations

import struct

import numpy as np
import pytest

pytest.importorskip("pydicom", reason="the extra dicom")

from pydicom.datadict import tag_for_keyword

from stageproof.runtime import ImageError
from stageproof.runtime.images.reader import read, read_all
from tests.runtime.dicoms import RAMP, Dataset, dataset, encoded, lut, shown

OPTIONAL = [
    *("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth", "VOILUTFunction", "PixelPaddingValue"),
    *("PixelPaddingRangeLimit", "NumberOfFrames", "HighBit", "PresentationLUTShape", "PlanarConfiguration"),
    *("ModalityLUTSequence", "VOILUTSequence", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
    *("BurnedInAnnotation", "ExtendedOffsetTable", "RedPaletteColorLookupTableDescriptor"),
]
NEEDED = [
    *("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored"),
    "PixelRepresentation",
]


def without_value(name: str, made: Dataset) -> Dataset:
    """`made` with the element there and empty."""
    from pydicom.datadict import dictionary_VR
    from pydicom.dataelem import DataElement

    kind = dictionary_VR(name).split(" or ")[0]
    made[name] = DataElement(name, kind, [] if kind == "SQ" else None)
    return made


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2"], ids=["explicit", "implicit"])
@pytest.mark.parametrize("name", OPTIONAL)
def test_an_empty_element_counts_as_absent(name: str, syntax: str) -> None:
    made = without_value(name, dataset())
    made.file_meta.TransferSyntaxUID = syntax
    pixels, picture = shown(made)
    assert np.array_equal(pixels, np.rint(RAMP / 3780 * 255))
    assert picture.warnings == ()


@pytest.mark.parametrize("blank", [b"  ", b" \\", b"\\ ", b"\0\0"])
@pytest.mark.parametrize("name", ["RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth", "NumberOfFrames"])
def test_blanks_are_empty(name: str, blank: bytes) -> None:
    kind = b"IS" if name == "NumberOfFrames" else b"DS"
    header = struct.pack("<HH", tag_for_keyword(name) >> 16, tag_for_keyword(name) & 0xFFFF) + kind + b"\x02\x00"
    data = encoded(dataset(**{name: "77"}))
    assert data.count(header + b"77") == 1
    changed = data.replace(header + b"77", header + blank)
    assert np.array_equal(np.asarray(read(changed).image), np.rint(RAMP / 3780 * 255))


@pytest.mark.parametrize("name", ["ModalityLUTSequence", "VOILUTSequence"])
def test_a_sequence_of_empty_items_is_empty(name: str) -> None:
    pixels, _ = shown(dataset(**{name: [Dataset()]}))
    assert np.array_equal(pixels, np.rint(RAMP / 3780 * 255))
    item = without_value("LUTDescriptor", without_value("LUTData", Dataset()))
    assert np.array_equal(shown(dataset(**{name: [item]}))[0], pixels)
    item = without_value("LUTData", lut([1, 2], 0, 8))
    with pytest.raises(ImageError, match=f"has a {name} without its data"):
        read(encoded(dataset(**{name: [item]})))


def test_empty_elements_in_functional_groups() -> None:
    groups = []
    for slope in (1, 2):
        transformation, voi, group = Dataset(), Dataset(), Dataset()
        transformation.RescaleSlope, transformation.RescaleIntercept = slope, 0
        group.PixelValueTransformationSequence = [without_value("RescaleIntercept", transformation)]
        group.FrameVOILUTSequence = [without_value("WindowCenter", without_value("WindowWidth", voi))]
        groups.append(group)
    made = dataset(np.stack([RAMP, RAMP]), NumberOfFrames=2, PerFrameFunctionalGroupsSequence=groups)
    for picture in read_all(encoded(made)):
        assert np.array_equal(np.asarray(picture.image), np.rint(RAMP / 3780 * 255))


@pytest.mark.parametrize("how", ["missing", "empty"])
@pytest.mark.parametrize("name", NEEDED)
def test_what_is_needed_is_named(name: str, how: str) -> None:
    if name == "BitsAllocated":  # which pydicom needs to write pixels
        element = b"\x28\x00\x00\x01US\x02\x00\x10\x00"
        data = encoded(dataset()).replace(element, b"" if how == "missing" else element[:6] + b"\0\0")
    else:
        data = encoded(dataset(**{name: None}) if how == "missing" else without_value(name, dataset()))
    with pytest.raises(ImageError, match=rf"has no value for {name}, required to read its pixels") as caught:
        read(data)
    assert "Error)" not in str(caught.value)
    assert "damaged" not in str(caught.value)


def test_all_that_is_missing_is_named_at_once() -> None:
    with pytest.raises(ImageError, match="has no value for Rows, Columns, BitsStored, required"):
        read(encoded(dataset(Rows=None, Columns=None, BitsStored=None)))


def test_colour_needs_its_planes() -> None:
    made = dataset(SamplesPerPixel=3, PhotometricInterpretation="RGB", PixelData=bytes(8 * 8 * 6))
    with pytest.raises(ImageError, match="no value for PlanarConfiguration, required for colour"):
        read(encoded(without_value("PlanarConfiguration", made)))


@pytest.mark.parametrize("how", ["missing", "empty"])
def test_no_pixels(how: str) -> None:
    made = dataset(PixelData=None) if how == "missing" else without_value("PixelData", dataset())
    with pytest.raises(ImageError, match="describes an image but has no pixels: it is truncated, or was exported"):
        read(encoded(made))
    made = dataset(PixelData=None, Rows=None, Columns=None)
    with pytest.raises(ImageError, match="is a DICOM file without pixels"):
        read(encoded(made))


@pytest.mark.parametrize(
    ("name", "value"),
    [("RescaleSlope", b"1.2.3 "), ("WindowWidth", b"1-5 "), ("RescaleIntercept", b"--"), ("RescaleSlope", b"9e999 ")],
)
def test_numbers_that_are_none_are_named_and_not_repeated(name: str, value: bytes) -> None:
    data = encoded(dataset(**{name: "7" * len(value)}))
    with pytest.raises(ImageError, match=f"has a value of {name} in a form that DICOM does not allow"):
        read(data.replace(b"7" * len(value), value))


def test_several_numbers_where_one_belongs() -> None:
    made = dataset()
    made.add_new("Rows", "US", [8, 8])
    with pytest.raises(ImageError, match="has a value of Rows in a form that DICOM does not allow"):
        read(encoded(made))


def test_a_number_of_another_length() -> None:
    data = encoded(dataset())
    rows = b"\x28\x00\x10\x00US\x02\x00\x08\x00"
    with pytest.raises(ImageError, match="has a value of Rows in a form that DICOM does not allow"):
        read(data.replace(rows, rows[:6] + b"\x03\x00\x08\x00\x00"))
