"""DICOM files that are not read, each named with the reason; and every file that pydicom ships."""

from __future__ import annotations

import pytest

from stageproof.runtime import ImageError, InputError, Predictor
from stageproof.runtime.images.reader import read
from tests.runtime.dicoms import SHIPPED, dataset, encoded


def test_codecs_that_are_not_read_are_named() -> None:
    by_name = {path.name: path for path in SHIPPED}
    for name, match in (
        ("JPEG-lossy.dcm", r"is 12-bit JPEG \(JPEG Extended"),
        ("test-SR.dcm", r"is a DICOM file without pixels"),
        ("MR_truncated.dcm", r"is truncated: its PixelData has 8130 bytes of 8192"),
    ):
        with pytest.raises(ImageError, match=match):
            read(by_name[name])


def test_a_file_that_claims_to_be_giant() -> None:
    with pytest.raises(ImageError, match=r"is 65535 x 65535 with 1 frames of 1 samples; the limits are 1 to"):
        read(encoded(dataset(Rows=65535, Columns=65535)))
    with pytest.raises(ImageError, match=r"with 1000000000 frames"):
        read(encoded(dataset(NumberOfFrames=1_000_000_000)))
    jpeg2000 = next(path for path in SHIPPED if path.name == "MR_small_jp2klossless.dcm").read_bytes()
    start = jpeg2000.index(b"\xff\x4f\xff\x51") + 8
    with pytest.raises(ImageError, match=r"declares 64 x 64, but its compressed frame 65535 x 64"):
        read(jpeg2000[:start] + (65535).to_bytes(4, "big") + jpeg2000[start + 4 :])


def test_without_pydicom_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    source = encoded(dataset())
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(ImageError, match=r"needs the package pydicom: pip install 'stageproof\[dicom\]'"):
        read(source)


@pytest.mark.filterwarnings("default")  # pydicom warns of its own broken files
def test_every_file_that_pydicom_ships(onnx_predictor: Predictor) -> None:
    assert len(SHIPPED) > 150
    answered = 0
    for path in SHIPPED:
        try:
            prediction = onnx_predictor.predict_study([path]).slices[0]
        except InputError as error:
            raise AssertionError(path) from error
        assert prediction.status in ("ok", "rejected")
        assert prediction.code == ("unreadable" if prediction.status == "rejected" else "")
        answered += prediction.status == "ok"
    assert answered >= 90
