"""A patient's name in a DICOM file reaches no result, message, log or file."""

from __future__ import annotations

import json
import logging
import traceback
from pathlib import Path

import pytest

from stageproof.runtime import ImageError, Prediction, Predictor
from stageproof.runtime.__main__ import main
from tests.runtime.dicoms import dataset, encoded

NAME = "Zyxwvut^Qponml"
PLANTED = NAME.encode()


def replaced(data: bytes, old: bytes, new: bytes) -> bytes:
    assert old in data
    return data.replace(old, new)


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
        main(
            [
                "--bundle",
                str(bundle),
                str(tmp_path / "slice.dcm"),
                str(tmp_path / "cut.dcm"),
                "--backend",
                "onnx",
                *form,
            ]
        )
    said.append((tmp_path / "results.csv").read_text(encoding="utf-8"))
    captured = capfd.readouterr()
    assert captured.out.count("slice.dcm") >= 2
    said += [captured.out, captured.err, caplog.text, (tmp_path / "audit.jsonl").read_text(encoding="utf-8")]
    assert isinstance(predictor.predict(whole), Prediction)
    for text in said:
        assert "Zyxwvut" not in text
