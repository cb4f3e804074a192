"""Damage in a DICOM header makes nothing print it: pydicom is not given the elements that name a patient."""

from __future__ import annotations

import logging
import random
import subprocess
import sys
import traceback
import warnings
from pathlib import Path

import pytest

from stageproof.runtime import ImageError
from stageproof.runtime.dicom.elements import parse
from stageproof.runtime.images.reader import read
from tests.runtime.dicoms import dataset, encoded

ROOT = Path(__file__).resolve().parents[2]
PLANTED = {"PatientName": "Zyxwvut^Qponml", "PatientID": "ZYX-4711", "PatientBirthDate": "19330107"}


def said_by(data: bytes, caplog: pytest.LogCaptureFixture) -> str:
    caplog.clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            read(data)
            error = ""
        except ImageError as failure:
            error = "".join(traceback.format_exception(failure))
    return error + caplog.text + "".join(str(one.message) for one in caught)


@pytest.mark.filterwarnings("default")
def test_no_damaged_byte_of_the_file_meta_prints_a_patient(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("pydicom").setLevel(logging.DEBUG)
    whole = encoded(dataset(**PLANTED))
    end = whole.index(b"\x08\x00\x16\x00")
    said = []
    for at in range(128, end):
        for value in (0, 1, 2, 8, 65, 79, 127, 255, whole[at] ^ 1, whole[at] ^ 32):
            damaged = bytearray(whole)
            damaged[at] = value
            said.append(said_by(bytes(damaged), caplog))
    captured = capfd.readouterr()
    for text in (*said, captured.out, captured.err):
        assert not any(secret in text for secret in PLANTED.values())
    assert sum(text == "" for text in said) > 500  # of most files the pixels are still there


@pytest.mark.filterwarnings("default")
def test_no_damage_anywhere_prints_a_patient(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    pick = random.Random(20)
    whole = encoded(dataset(SpecificCharacterSet="ISO_IR 100", ImageComments="Zyxwvut", **PLANTED))
    said = []
    for _ in range(1500):
        damaged = bytearray(whole)
        for _ in range(pick.randint(1, 3)):
            at, kind = pick.randrange(128, 500), pick.randrange(3)
            if kind == 0:
                damaged[at] = pick.randrange(256)
            elif kind == 1:
                del damaged[at : at + pick.randint(1, 4)]
            else:
                damaged[at:at] = pick.randbytes(pick.randint(1, 4))
        said.append(said_by(bytes(damaged), caplog))
    captured = capfd.readouterr()
    for text in (*said, captured.out, captured.err):
        assert not any(secret in text for secret in (*PLANTED.values(), "Zyxwvut"))


def test_elements_that_are_not_wanted_are_not_kept() -> None:
    data = encoded(dataset(**PLANTED))
    found = parse(data, {0x00280010})
    assert set(found.elements) == {0x00280010}
    assert found.elements[0x00280010].value == b"\x08\0"
    assert found.syntax == b"1.2.840.10008.1.2.1"


def test_an_error_keeps_no_file_alive(tmp_path: Path) -> None:
    """Frames of its traceback, and of what led to it, hold no buffer: hosts keep exceptions in lists and in logs."""
    path = tmp_path / "cut.dcm"
    for number, data in enumerate((encoded(dataset())[:-40], b"\x89PNG\r\n\x1a\n" + bytes(5000), b"nothing" * 1000)):
        path = tmp_path / f"{number}"
        path.write_bytes(data)
        for source in (path, data):
            try:
                read(source)
            except ImageError as error:
                kept = error
            assert kept.__cause__ is None
            assert kept.__context__ is None
            frame = kept.__traceback__
            while frame is not None:
                if frame.tb_frame.f_code.co_filename != __file__:
                    values = frame.tb_frame.f_locals.values()
                    assert not any(isinstance(value, (bytes, bytearray, memoryview)) for value in values)
                frame = frame.tb_next


def test_libtiff_may_write_to_stderr_but_names_nobody() -> None:
    code = """
import sys
from runtime import ImageError
from runtime.images.reader import read
from tests.runtime.bombs import tiled_tiff
try:
    read(tiled_tiff(64))
except ImageError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "Traceback" not in done.stderr
