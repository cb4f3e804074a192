"""Patients, studies and series of DICOM files and lists are keyed digests, equal for equal ids."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from stageproof.runtime import InputError
from stageproof.serving.archive.dicom_ids import DicomIds, dicom_ids
from stageproof.serving.archive.pseudonyms import DIGITS, fingerprint, keyed, read_key
from stageproof.serving.archive.run import score
from tests.runtime.dicoms import RAMP, dataset, encoded
from tests.serving.test_score import rows_of

pytest.importorskip("pydicom")


def write_dicom(path: Path, **elements: str) -> Path:
    path.write_bytes(encoded(dataset(**elements)))
    return path


def test_ids_of_dicom_headers_are_read(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", PatientID="DOE^7", StudyInstanceUID="1.2.3", SeriesInstanceUID="1.2.3.4")
    assert dicom_ids(path.read_bytes()) == DicomIds(b"DOE^7", b"1.2.3", b"1.2.3.4")
    whole = path.read_bytes()
    for end in range(0, 700, 7):
        dicom_ids(whole[:end])  # cut off anywhere: no error
    assert dicom_ids(b"\x89PNG") == DicomIds()


def test_rows_have_digests_of_ids(request_for, archive, tmp_path):
    root = tmp_path / "in"
    root.mkdir()
    for at, patient in enumerate(["DOE^7", "DOE^7", "ROE^8"]):
        write_dicom(root / f"{at}.dcm", PatientID=patient, StudyInstanceUID=f"1.2.{at}")
    shutil.copy(archive / "doe-john-0" / "anat" / "slice0.png", root / "x.png")
    table = tmp_path / "list.csv"
    table.write_text(f"path,patient\n{archive}/doe-john-1/anat/slice0.png,DOE^7\n")
    plan = score(request_for(inputs=[str(root), str(table)])).plan
    rows = rows_of(plan)
    ids = [row["patient_id"] for row in rows]
    assert ids[0] == ids[1] == ids[4] != ids[2]
    assert ids[3] is None
    assert len({row["study_id"] for row in rows[:3]}) == 3
    assert len({row["input_id"] for row in rows}) == 5
    shared = b"".join(path.read_bytes() for path in plan.parts.iterdir())
    assert b"DOE^7" not in shared


def test_a_file_of_several_frames_is_a_row_that_says_so(request_for, tmp_path):
    root = tmp_path / "in"
    root.mkdir()
    frames = np.stack([RAMP, RAMP])
    (root / "a.dcm").write_bytes(encoded(dataset(frames, NumberOfFrames=2)))
    (row,) = rows_of(score(request_for(inputs=[str(root)])).plan)
    assert (row["status"], row["code"]) == ("rejected", "unreadable")
    assert "2 frames" in row["reason"]


def test_digests_depend_on_key_kind_and_name():
    one = keyed(b"k" * 32, "input")
    found = {one("a"), one("b"), keyed(b"k" * 32, "patient")("a"), keyed(b"x" * 32, "input")("a")}
    assert len(found) == 4
    assert {len(text) for text in found} == {DIGITS}
    assert one("a") == one(b"a")
    assert one("") is one(None) is None
    assert fingerprint(b"k" * 32) not in found


@pytest.mark.parametrize("content", [b"short", b"x" * 5000])
def test_a_key_of_another_length_is_refused(content, tmp_path):
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(InputError, match="expected 32 to 4096 random ones"):
        read_key(tmp_path / "key")
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_key(tmp_path / "none")
