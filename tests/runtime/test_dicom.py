"""DICOM: the display pipeline in the standard's order, every file that pydicom ships, and nobody's name anywhere."""

from __future__ import annotations

import io
import json
import logging
import time
import traceback
from pathlib import Path

import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom", reason="the extra dicom")

from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, RLELossless, generate_uid  # noqa: E402

from runtime import ImageError, InputError, Prediction, Predictor  # noqa: E402
from runtime.__main__ import main  # noqa: E402
from runtime.dicom_display import window  # noqa: E402
from runtime.reading import Picture, read, read_all  # noqa: E402

SHIPPED = sorted(
    path
    for path in (Path(pydicom.__file__).parent / "data").rglob("*")
    if path.is_file() and path.suffix not in (".py", ".pyc", ".json", ".csv", ".txt")
)
RAMP = np.arange(64, dtype=np.uint16).reshape(8, 8) * 60  # 0 to 3780
AXIAL = [1, 0, 0, 0, 1, 0]


def dataset(pixels: np.ndarray = RAMP, **elements: object) -> Dataset:
    """An axial MR slice of these stored values, or with other elements; None leaves one out."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID = MRImageStorage
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID = generate_uid()
    made.Modality, made.ImageOrientationPatient, made.PhotometricInterpretation = "MR", AXIAL, "MONOCHROME2"
    made.Rows, made.Columns = pixels.shape[-2:]
    made.SamplesPerPixel = 1
    made.BitsAllocated = made.BitsStored = pixels.dtype.itemsize * 8
    made.HighBit = made.BitsStored - 1
    made.PixelRepresentation = int(pixels.dtype.kind == "i")
    made.PixelData = pixels.tobytes()
    for name, value in elements.items():
        if value is None:
            delattr(made, name)
        else:
            setattr(made, name, value)
    return made


def encoded(made: Dataset) -> bytes:
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, made, enforce_file_format=True)
    return buffer.getvalue()


def replaced(data: bytes, old: bytes, new: bytes) -> bytes:
    assert old in data
    return data.replace(old, new)


def shown(made: Dataset) -> tuple[np.ndarray, Picture]:
    picture = read(encoded(made))
    return np.asarray(picture.image), picture


def lut(values: list[int], first: int, bits: int) -> Dataset:
    item = Dataset()
    item.LUTDescriptor = [len(values), first, bits]
    item.add_new("LUTData", "US", values)  # US or OW, as the file likes
    return item


# The display pipeline.


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
    with pytest.raises(ImageError, match=r"holds 3 frames; expected one image\. Pass it to predict_study"):
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
    made.compress(RLELossless)
    assert np.array_equal(shown(made)[0], plain)


@pytest.mark.filterwarnings("default:The pixel data is 8320 bytes long")
def test_the_lossless_files_of_pydicom_agree() -> None:
    """The same MR slice as little endian, big endian, implicit, RLE, JPEG 2000 and JPEG-LS."""
    files = [path for path in SHIPPED if path.name.startswith("MR_small")]
    assert len(files) >= 8
    images = [np.asarray(read(path).image) for path in files]
    assert all(np.array_equal(image, images[0]) for image in images)


# Refusals.


def test_codecs_that_are_not_read_are_named() -> None:
    by_name = {path.name: path for path in SHIPPED}
    for name, match in (
        (
            "SC_rgb_jpeg_gdcm.dcm",
            r"as JPEG Lossless, .*\(1\.2\.840.*no decoder is installed.*neurostage\[dicom\]",
        ),
        ("image_dfl.dcm", r"compressed as Deflated Explicit VR Little Endian .* dcmconv"),
        ("JPEG-lossy.dcm", r"could not be decoded as DICOM, compressed as JPEG Extended"),
        ("test-SR.dcm", r"is a DICOM file without pixels"),
        ("MR_truncated.dcm", r"could not be decoded as DICOM .*: it is truncated, damaged"),
    ):
        with pytest.raises(ImageError, match=match):
            read(by_name[name])


def test_a_file_that_claims_to_be_giant() -> None:
    with pytest.raises(ImageError, match=r"is 65535 x 65535 with 1 frames of 1 samples; from 1 to"):
        read(encoded(dataset(Rows=65535, Columns=65535)))
    with pytest.raises(ImageError, match=r"with 1000000000 frames"):
        read(encoded(dataset(NumberOfFrames=1_000_000_000)))
    jpeg2000 = next(path for path in SHIPPED if path.name == "MR_small_jp2klossless.dcm").read_bytes()
    start = jpeg2000.index(b"\xff\x4f\xff\x51") + 8
    with pytest.raises(ImageError, match=r"says 64 x 64, and its compressed frame 65535 x 64"):
        read(jpeg2000[:start] + (65535).to_bytes(4, "big") + jpeg2000[start + 4 :])


def test_without_pydicom_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    source = encoded(dataset())
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(ImageError, match=r"needs the package pydicom: pip install 'neurostage\[dicom\]'"):
        read(source)


@pytest.mark.filterwarnings("default")  # pydicom warns of its own broken files
def test_every_file_that_pydicom_ships(onnx_predictor: Predictor) -> None:
    assert len(SHIPPED) > 150
    answered = 0
    for path in SHIPPED:
        begun = time.perf_counter()
        try:
            prediction = onnx_predictor.predict_study([path]).slices[0]
        except InputError as error:
            raise AssertionError(path) from error
        assert prediction.status in ("ok", "rejected")
        assert prediction.code == ("unreadable" if prediction.status == "rejected" else "")
        answered += prediction.status == "ok"
        assert time.perf_counter() - begun < 10, path  # 2 s on a machine that does nothing else
    assert answered >= 90


# Identifiers.

NAME = "Zyxwvut^Qponml"
PLANTED = NAME.encode()


@pytest.mark.filterwarnings("default")
def test_a_patients_name_goes_nowhere(
    bundle: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Planted in every element a name can stand in, also where it makes the file unreadable."""
    caplog.set_level(logging.DEBUG)
    planted = {
        **dict.fromkeys(("PatientName", "ReferringPhysicianName", "OperatorsName", "PatientComments"), NAME),
        **dict.fromkeys(("PatientID", "AccessionNumber", "StudyID", "ImageComments", "StudyDescription"), NAME),
    }
    whole = encoded(dataset(**planted))
    frames = encoded(dataset(NumberOfFrames="1", SpecificCharacterSet="ISO_IR 100", **planted))
    sources = [
        whole,
        whole[:-40],
        whole[:700],
        replaced(whole, b"\x08\x00\x60\x00CS\x02\x00MR", b"\x08\x00\x60\x00CS\x0e\x00" + PLANTED),
        replaced(frames, b"IS\x02\x001 ", b"IS\x0e\x00" + PLANTED),
        replaced(frames, b"CS\x0a\x00ISO_IR 100", b"CS\x0e\x00" + PLANTED),
        replaced(whole, b"1.2.840.10008.1.2.1\0", PLANTED + b"......"),
        replaced(whole[132:], b"MR", b"M\n"),
    ]
    predictor = Predictor(bundle, backend="onnx", guard=False, audit=tmp_path / "audit.jsonl")
    said = []
    for source in sources:
        assert PLANTED in source
        try:
            said.append(json.dumps(predictor.predict(source).to_dict()))
        except ImageError as error:
            said.append("".join(traceback.format_exception(error)))
        said.append(json.dumps([one.to_dict() for one in predictor.predict_batch([source])]))
    (tmp_path / "slice.dcm").write_bytes(whole)
    (tmp_path / "cut.dcm").write_bytes(whole[:-40])
    said.append(json.dumps(predictor.predict_study([whole, whole[:700]]).to_dict()))
    for form in ([], ["--json"], ["--study"], ["--output", str(tmp_path / "results.csv")]):
        main([str(bundle), str(tmp_path / "slice.dcm"), str(tmp_path / "cut.dcm"), "--backend", "onnx", *form])
    said.append((tmp_path / "results.csv").read_text(encoding="utf-8"))
    captured = capfd.readouterr()
    assert captured.out.count("slice.dcm") >= 2
    said += [captured.out, captured.err, caplog.text, (tmp_path / "audit.jsonl").read_text(encoding="utf-8")]
    assert isinstance(predictor.predict(whole), Prediction)
    for text in said:
        assert "Zyxwvut" not in text
