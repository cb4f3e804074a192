"""Where a pixel's bits lie in its cell: every depth, shift and sign, with other things in the bits that are unused."""

from __future__ import annotations

import struct

import numpy as np
import pytest

pytest.importorskip("pydicom", reason="the extra dicom")

from pydicom.encaps import encapsulate

from stageproof.runtime import ImageError
from stageproof.runtime.images.reader import read
from tests.runtime.dicoms import RAMP, dataset, encoded, shown

LITTLE, BIG, IMPLICIT, RLE = (
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.5",
)


def values_of(stored: int, signed: bool, seed: int) -> np.ndarray:
    """(5, 7) int64 over the whole range of `stored` bits, both of its ends among them."""
    low = -(1 << (stored - 1)) if signed else 0
    high = low + (1 << stored) - 1
    values = np.random.default_rng(seed).integers(low, high, (5, 7), endpoint=True)
    values[0, :2] = low, high
    return values


def cells(values: np.ndarray, allocated: int, stored: int, high: int, seed: int) -> np.ndarray:
    """The values as they lie in the file, with noise in the bits outside."""
    mask = ((1 << stored) - 1) << (high + 1 - stored)
    noise = np.random.default_rng(seed + 1).integers(0, 1 << allocated, values.shape)
    return (((values << (high + 1 - stored)) & mask) | (noise & ~mask)).astype(f"<u{allocated // 8}")


def rle(samples: np.ndarray) -> bytes:
    """RLE Lossless of (pixels, samples a pixel), in literal runs only (PS3.5 annex G)."""
    segments = []
    for component in samples.T:
        planes = np.ascontiguousarray(component.astype(component.dtype.newbyteorder(">"))).view(np.uint8)
        for plane in planes.reshape(len(component), -1).T:
            runs = [plane[at : at + 128].tobytes() for at in range(0, len(plane), 128)]
            segment = b"".join(bytes([len(run) - 1]) + run for run in runs)
            segments.append(segment + b"\0" * (len(segment) % 2))
    offsets = np.cumsum([64, *map(len, segments)])[:-1]
    return struct.pack("<16I", len(segments), *offsets, *[0] * (15 - len(segments))) + b"".join(segments)


def stretched(values: np.ndarray) -> np.ndarray:
    low, high = int(values.min()), int(values.max())
    return np.rint((values - low) / (high - low) * 255).astype(np.uint8)


GRID = [
    (allocated, stored, high)
    for allocated, several in ((8, (1, 5, 7, 8)), (16, (1, 8, 10, 12, 14, 15, 16)), (32, (12, 20, 32)))
    for stored in several
    for high in sorted({stored - 1, stored, allocated - 1})
    if high < allocated
]


@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
@pytest.mark.parametrize(("allocated", "stored", "high"), GRID)
def test_every_place_in_the_cell(allocated: int, stored: int, high: int, signed: bool) -> None:
    values = values_of(stored, signed, seed=allocated + stored)
    raw = cells(values, allocated, stored, high, seed=stored)
    for syntax in (LITTLE, BIG, IMPLICIT, RLE):
        made = dataset(raw, BitsStored=stored, HighBit=high, PixelRepresentation=int(signed))
        if syntax == BIG:
            made["PixelData"].value = raw.astype(raw.dtype.newbyteorder(">")).tobytes()
            made["PixelData"].VR = "OB" if allocated == 8 else "OW"
        if len(made.PixelData) % 2:
            made["PixelData"].value += b"\0"
        made.file_meta.TransferSyntaxUID = syntax
        if syntax == RLE:
            made.PixelData = encapsulate([rle(raw.reshape(-1, 1))])
            made["PixelData"].VR = "OB"
        else:
            made["PixelData"].VR = "OB" if allocated == 8 and syntax != IMPLICIT else "OW"
        pixels, _ = shown(made)
        assert np.array_equal(pixels, stretched(values)), syntax


def test_twelve_bits_at_the_top_of_sixteen() -> None:
    low, _ = shown(dataset(BitsStored=12, HighBit=11))
    high, _ = shown(dataset(RAMP << 4, BitsStored=12, HighBit=15))
    assert np.array_equal(low, high)


def test_an_unstated_high_bit_is_the_lowest_possible() -> None:
    with_it, _ = shown(dataset(BitsStored=12, HighBit=11))
    assert np.array_equal(shown(dataset(BitsStored=12, HighBit=None))[0], with_it)


@pytest.mark.parametrize(
    ("stored", "high", "allocated"), [(12, 10, 16), (12, 16, 16), (17, 16, 16), (0, 0, 16), (16, 15, 8)]
)
def test_bits_that_do_not_fit_together(stored: int, high: int, allocated: int) -> None:
    with pytest.raises(
        ImageError, match=rf"inconsistent BitsStored {stored}, HighBit {high} and BitsAllocated {allocated}"
    ):
        read(encoded(dataset(BitsStored=stored, HighBit=high, BitsAllocated=allocated)))


@pytest.mark.parametrize("allocated", [2, 12, 24, 128])
def test_cells_of_another_size(allocated: int) -> None:
    with pytest.raises(ImageError, match=rf"BitsAllocated {allocated}, expected 1, 8, 16, 32, 64"):
        read(encoded(dataset(BitsAllocated=allocated)))


def test_one_bit_a_pixel() -> None:
    bits = np.random.default_rng(0).integers(0, 2, (8, 8)).astype(np.uint8)
    packed = np.packbits(bits.ravel(), bitorder="little")
    made = dataset(bits, BitsAllocated=1, BitsStored=1, HighBit=0, PixelData=packed.tobytes())
    assert np.array_equal(shown(made)[0], bits * 255)


@pytest.mark.parametrize("planar", [0, 1])
@pytest.mark.parametrize("syntax", [LITTLE, RLE])
def test_colour_by_pixel_and_by_plane(planar: int, syntax: str) -> None:
    colour = np.random.default_rng(4).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    stored = colour if planar == 0 else np.ascontiguousarray(np.moveaxis(colour, -1, 0))
    made = dataset(
        colour[..., 0], PixelData=stored.tobytes(), SamplesPerPixel=3, PlanarConfiguration=planar,
        PhotometricInterpretation="RGB",
    )  # fmt: skip
    if syntax == RLE:  # planes, whatever is stated (PS3.5 G.2)
        made.file_meta.TransferSyntaxUID = RLE
        made.PixelData = encapsulate([rle(colour.reshape(-1, 3))])
    assert np.array_equal(shown(made)[0], colour)


@pytest.mark.parametrize(("photometric", "luminance"), [("YBR_FULL", 3), ("YBR_FULL_422", 2)])
def test_luminance_and_chrominance(photometric: str, luminance: int) -> None:
    """PS3.3 C.7.6.3.1.2: without chrominance (128) it is grey; 4:2:2 keeps two luminances, then both differences."""
    grey = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
    if luminance == 3:
        data = np.dstack([grey, np.full_like(grey, 128), np.full_like(grey, 128)])
    else:
        pairs = grey.reshape(6, 4, 2)
        data = np.concatenate([pairs, np.full_like(pairs, 128)], axis=-1)
    made = dataset(
        grey, PixelData=np.ascontiguousarray(data).tobytes(), SamplesPerPixel=3, PlanarConfiguration=0,
        PhotometricInterpretation=photometric,
    )  # fmt: skip
    pixels, picture = shown(made)
    assert np.array_equal(pixels, grey)
    assert picture.transforms == ("YBR to RGB",)


@pytest.mark.parametrize("form", ["8 bits", "8 bits in words", "16 bits"])
@pytest.mark.parametrize("first", [0, 3])
def test_palettes(form: str, first: int) -> None:
    index = np.random.default_rng(1).integers(0, 8, (6, 8), dtype=np.uint8)
    tables = np.random.default_rng(2).integers(0, 256, (3, 4), dtype=np.uint8)
    made = dataset(index, PhotometricInterpretation="PALETTE COLOR")
    for colour, table in zip(("Red", "Green", "Blue"), tables, strict=True):
        words = {"8 bits": table, "8 bits in words": table.astype("<u2"), "16 bits": table.astype("<u2") * 257}[form]
        setattr(made, f"{colour}PaletteColorLookupTableDescriptor", [4, first, 16 if form == "16 bits" else 8])
        setattr(made, f"{colour}PaletteColorLookupTableData", words.tobytes())
    expected = tables.T[np.clip(index.astype(int) - first, 0, 3)]
    assert np.array_equal(shown(made)[0], expected)


def test_colour_that_is_not_read_is_named() -> None:
    colour = {"SamplesPerPixel": 3, "PlanarConfiguration": 0, "PixelData": bytes(8 * 8 * 6)}
    with pytest.raises(ImageError, match="another PhotometricInterpretation than MONOCHROME1, MONOCHROME2"):
        read(encoded(dataset(PhotometricInterpretation="YBR_PARTIAL_420", **colour)))
    with pytest.raises(ImageError, match="SamplesPerPixel 1, but PhotometricInterpretation RGB requires 3"):
        read(encoded(dataset(PhotometricInterpretation="RGB")))
    with pytest.raises(ImageError, match="colour image with BitsAllocated 16, BitsStored 12 and HighBit 15"):
        read(encoded(dataset(PhotometricInterpretation="RGB", BitsStored=12, HighBit=15, **colour)))
    with pytest.raises(ImageError, match="no value for RedPaletteColorLookupTableDescriptor"):
        read(encoded(dataset(PhotometricInterpretation="PALETTE COLOR")))


def test_more_pixels_than_frames() -> None:
    frames = np.stack([RAMP, RAMP, RAMP])
    with pytest.raises(ImageError, match=r"declares 1 frame \(NumberOfFrames\), but its PixelData has the size of 3"):
        read(encoded(dataset(frames)))
    made = dataset(PixelData=RAMP.tobytes() + bytes(100))  # padding, less than another frame
    assert np.array_equal(shown(made)[0], shown(dataset())[0])


def test_fewer_pixels_than_stated() -> None:
    with pytest.raises(ImageError, match="is truncated: its PixelData has 126 bytes of 128"):
        read(encoded(dataset(PixelData=RAMP.tobytes()[:-2])))
