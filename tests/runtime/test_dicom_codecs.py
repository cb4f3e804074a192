"""Each transfer syntax of PS3.6 is read, or refused by its name and by what it needs; `docs/IMAGES.md` says which."""

from __future__ import annotations

import io
import re
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

pytest.importorskip("pydicom", reason="the extra dicom")

from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels import get_decoder
from pydicom.uid import UID

from stageproof.runtime import ImageError
from stageproof.runtime.images.reader import read, read_all
from tests.runtime.dicoms import RAMP, SHIPPED, dataset, encoded, shown
from tests.runtime.test_dicom_bits import rle
from tests.runtime.test_jpeg_lossless import encoded as lossless

PAGE = Path(__file__).parents[2] / "docs" / "IMAGES.md"
PREFIX = "1.2.840.10008.1.2"
GREY = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)


def compressed(syntax: str, frames: list[bytes], pixels: np.ndarray = RAMP, **elements: object):
    made = dataset(pixels, **elements)
    made.file_meta.TransferSyntaxUID = UID(syntax)
    made.PixelData = encapsulate([frame + b"\0" * (len(frame) % 2) for frame in frames])
    made["PixelData"].VR = "OB"
    return made


def restated(made, syntax: str) -> bytes:
    """The file, stating a transfer syntax that pydicom does not write."""
    made.file_meta.TransferSyntaxUID = UID(f"{PREFIX}.4.50")
    data = encoded(made)
    old = data[data.index(b"\x02\x00\x10\x00UI") :][: 8 + 22]
    value = syntax.encode() + b"\0" * (len(syntax) % 2)
    data = data.replace(old, old[:6] + struct.pack("<H", len(value)) + value)
    at = data.index(b"\x02\x00\x00\x00UL\x04\x00") + 8
    (length,) = struct.unpack("<I", data[at : at + 4])
    return data[:at] + struct.pack("<I", length + len(value) - 22) + data[at + 4 :]


def saved(form: str, pixels: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, **options)
    return buffer.getvalue()


def stretched(values: np.ndarray) -> np.ndarray:
    return np.rint((values - float(values.min())) / float(np.ptp(values)) * 255)


@pytest.mark.parametrize("predictor", [1, 4, 7])
@pytest.mark.parametrize("syntax", [f"{PREFIX}.4.57", f"{PREFIX}.4.70"])
@pytest.mark.parametrize(("bits", "allocated"), [(8, 8), (12, 16), (16, 16)])
@pytest.mark.parametrize("signed", [False, True])
def test_jpeg_lossless(syntax: str, predictor: int, bits: int, allocated: int, signed: bool) -> None:
    values = np.random.default_rng(bits).integers(0, 1 << bits, (6, 8))
    values[0, :2] = 0, (1 << bits) - 1
    codes = values.astype(np.uint16)
    pixels = np.zeros((6, 8), np.uint8 if allocated == 8 else np.uint16)
    elements = {"BitsStored": bits, "HighBit": bits - 1, "PixelRepresentation": int(signed)}
    made = compressed(syntax, [lossless(codes[None], bits, predictor)], pixels, **elements)
    if signed:
        values = np.where(values >= 1 << (bits - 1), values - (1 << bits), values)
    assert np.array_equal(shown(made)[0], stretched(values))


def test_jpeg_lossless_of_several_frames_and_of_colour() -> None:
    frames = np.stack([RAMP, RAMP.T]).astype(np.uint16)
    made = compressed(f"{PREFIX}.4.70", [lossless(f[None], 12, 1) for f in frames], frames, NumberOfFrames=2)
    made.BitsStored, made.HighBit = 12, 11
    for picture in read_all(encoded(made)):
        assert np.array_equal(np.asarray(picture.image).max(), 255)
    colour = np.random.default_rng(3).integers(0, 256, (8, 8, 3)).astype(np.uint16)
    elements = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}
    for planar in (0, 1):  # of no meaning here: the codestream says how its samples lie
        made = compressed(
            f"{PREFIX}.4.70", [lossless(np.moveaxis(colour, -1, 0), 8, 1)], GREY, PlanarConfiguration=planar, **elements
        )
        assert np.array_equal(shown(made)[0], colour)


def test_jpeg_lossless_that_gdcm_wrote_is_the_image_that_others_wrote() -> None:
    by_name = {path.name: path for path in SHIPPED}
    ours = np.asarray(read(by_name["SC_rgb_jpeg_gdcm.dcm"]).image)
    assert np.array_equal(ours, np.asarray(read(by_name["SC_rgb_rle.dcm"]).image))


def test_jpeg_lossless_that_is_cut_off() -> None:
    frame = lossless(RAMP[None], 12, 1)
    with pytest.raises(ImageError, match=r"is truncated or damaged: its JPEG Lossless frame does not decode"):
        read(encoded(compressed(f"{PREFIX}.4.70", [frame[:-20]], BitsStored=12, HighBit=11)))
    with pytest.raises(
        ImageError, match="declares 1 samples of 8 bits per pixel, but its JPEG Lossless frame has 1 of 12"
    ):
        read(encoded(compressed(f"{PREFIX}.4.70", [frame], GREY)))


def twelve_bits(frame: bytes) -> bytes:
    """An 8-bit JPEG whose frame header claims 12 (extended process)."""
    at = frame.index(b"\xff\xc0")
    return frame[:at] + b"\xff\xc1" + frame[at + 2 : at + 4] + b"\x0c" + frame[at + 5 :]


def test_twelve_bit_jpeg_is_named() -> None:
    made = compressed(f"{PREFIX}.4.51", [twelve_bits(saved("JPEG", GREY))], BitsStored=12, HighBit=11)
    if set(get_decoder(UID(f"{PREFIX}.4.51")).available_plugins) - {"pillow"}:
        pytest.skip("a plug-in that reads it is installed")
    with pytest.raises(ImageError, match=r"is 12-bit JPEG \(JPEG Extended.*pip install python-gdcm") as caught:
        read(encoded(made))
    assert "truncated" not in str(caught.value)


def test_a_frame_of_another_process_than_stated() -> None:
    baseline, other = saved("JPEG", GREY), lossless(GREY[None].astype(np.uint16), 8, 1)
    with pytest.raises(ImageError, match=r"Lossless.* but its compressed frame is baseline JPEG"):
        read(encoded(compressed(f"{PREFIX}.4.70", [baseline], GREY)))
    with pytest.raises(ImageError, match=r"JPEG Baseline.* but its compressed frame is lossless JPEG"):
        read(encoded(compressed(f"{PREFIX}.4.50", [other], GREY)))


def test_frames_that_are_not_stated() -> None:
    frames = [saved("JPEG", GREY), saved("JPEG", GREY)]
    with pytest.raises(ImageError, match=r"declares 1 frame \(NumberOfFrames\), but has 2 compressed images"):
        read(encoded(compressed(f"{PREFIX}.4.50", frames, GREY)))
    with pytest.raises(ImageError, match=r"truncated: it has 1 of 2 frames|could not be decoded"):
        read_all(encoded(compressed(f"{PREFIX}.4.50", frames[:1], np.stack([GREY, GREY]), NumberOfFrames=2)))


def test_compressed_pixels_whose_syntax_is_not_compressed() -> None:
    made = compressed(f"{PREFIX}.4.50", [saved("JPEG", GREY)], RAMP.repeat(20, 0).repeat(20, 1))
    data = encoded(made).replace(b"1.2.840.10008.1.2.4.50", b"1.2.840.10008.1.2.1\0\0\0")
    with pytest.raises(ImageError, match=r"has compressed pixels but no transfer syntax|could not be decoded"):
        read(data)


def test_a_high_bit_that_a_codestream_cannot_have() -> None:
    made = compressed(f"{PREFIX}.4.50", [saved("JPEG", GREY)], BitsStored=12, HighBit=15)
    with pytest.raises(ImageError, match="HighBit 15 with BitsStored 12, but its compressed frame has 8 bits"):
        read(encoded(made))
    shifted = compressed(f"{PREFIX}.4.70", [lossless(RAMP[None] << 4, 16, 1)], BitsStored=12, HighBit=15)
    assert np.array_equal(shown(shifted)[0], stretched(RAMP))


def test_private_and_unknown_syntaxes_are_not_repeated() -> None:
    for syntax, match in (
        ("1.2.840.113619.5.2", "has a private transfer syntax, which is not supported"),
        (f"{PREFIX}.4.999", "has a transfer syntax that DICOM does not define"),
    ):
        with pytest.raises(ImageError, match=match) as caught:
            read(restated(compressed(f"{PREFIX}.4.50", [b"\xff\xd8"]), syntax))
        assert syntax not in str(caught.value)


def frame_of(syntax: str) -> tuple[list[bytes], np.ndarray]:
    """A frame that this machine can write in the syntax, and the image."""
    if syntax in (f"{PREFIX}.4.50", f"{PREFIX}.4.51"):
        return [saved("JPEG", np.full((8, 8), 80, np.uint8))], GREY
    if syntax in (f"{PREFIX}.4.57", f"{PREFIX}.4.70"):
        return [lossless(GREY[None].astype(np.uint16), 8, 1)], GREY
    if syntax in (f"{PREFIX}.4.90", f"{PREFIX}.4.91"):
        return [saved("JPEG2000", GREY, no_jp2=True)], GREY
    if syntax == f"{PREFIX}.5":
        return [rle(GREY.reshape(-1, 1))], GREY
    if syntax in (f"{PREFIX}.4.80", f"{PREFIX}.4.81"):
        made = dataset(np.add.outer(np.arange(8), np.arange(8)).astype(np.uint8))
        made.compress(syntax, **({} if syntax.endswith("80") else {"jls_error": 1}))
        return list(generate_frames(made.PixelData, number_of_frames=1)), GREY
    return [struct.pack(">HHHBHHB", 0xFFD8, 0xFFC0, 11, 8, 8, 8, 1) + bytes(3)], GREY


def documented() -> list[tuple[str, str]]:
    """(transfer syntax, what the table says of it)."""
    rows = re.findall(r"^\| `([0-9.]+)` \|[^|]*\| ([^|]*) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) > 30
    return rows


@pytest.mark.parametrize(("syntax", "state"), documented(), ids=lambda value: str(value)[:28])
def test_the_table_of_the_documentation(syntax: str, state: str) -> None:
    if syntax in (PREFIX, f"{PREFIX}.1", f"{PREFIX}.2"):
        assert state.startswith("read")
        return  # test_dicom_bits reads each of them
    if syntax == f"{PREFIX}.1.99":
        assert state.startswith("read")  # test_bombs
        return
    source = restated(compressed(f"{PREFIX}.4.50", *frame_of(syntax)), syntax)
    if state.startswith("read"):
        try:
            assert read(source).image.size == (8, 8)
        except ImageError as error:
            if "no decoder is installed" in str(error) and ("HTJ2K" in state or not features.check("jpg_2000")):
                pytest.skip("its plug-in is not installed here")
            if syntax in (f"{PREFIX}.4.201", f"{PREFIX}.4.202", f"{PREFIX}.4.203"):
                return  # nothing here writes it: the decoder was reached
            raise
        return
    assert state.startswith("refused")
    with pytest.raises(ImageError, match=rf"compressed as .*\({re.escape(syntax)}\), which is not supported"):
        read(source)


def test_every_syntax_that_pydicom_knows_is_documented() -> None:
    import pydicom.uid

    known = {
        str(uid)
        for uid, (_, kind, *_) in pydicom.uid.UID_dictionary.items()
        if kind == "Transfer Syntax" and f"{uid}.".startswith(f"{PREFIX}.")
    }
    assert known <= {syntax for syntax, _ in documented()}
