"""The audit log: a line a prediction, no patient data, and a chain that shows every change."""

from __future__ import annotations

import json
import multiprocessing
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from runtime import Predictor, read_image
from runtime.audit import AuditLog, main, pixels_digest, verify
from runtime.errors import AuditError
from runtime.prediction import Prediction, Timings

PREDICTION = Prediction(
    status="rejected",
    label=None,
    cdr=None,
    probability=None,
    probabilities={},
    code="unreadable",
    reason="no such file: 'Doe^Jane.dcm'",
    guard={},
    transforms=(),
    warnings=(),
    backend="onnx",
    precision="fp32",
    model_digest="ab" * 32,
    timings=Timings(0, 0, 0),
)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log of ten predictions."""
    path = tmp_path / "audit.jsonl"
    audit = AuditLog(path)
    for _ in range(10):
        audit.record(PREDICTION, None)
    return path


def test_every_prediction_is_one_line(bundle: Path, tmp_path: Path, scan: Path) -> None:
    path = tmp_path / "audit.jsonl"
    predictor = Predictor(bundle, backend="onnx", guard=False, audit=path)
    prediction = predictor.predict(scan)
    predictor.predict_batch([scan, b"broken"])
    head, first, again, broken = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert (first["status"], first["label"]) == ("ok", prediction.label)
    assert first["probabilities"] == pytest.approx(dict(prediction.probabilities), abs=1e-6)
    assert (first["model"], first["backend"], first["precision"]) == (predictor.model.digest, "onnx", "fp32")
    assert first["pixels"] == again["pixels"] == pixels_digest(read_image(scan), head["salt"])
    assert (broken["status"], broken["code"], broken["pixels"]) == ("rejected", "unreadable", None)
    assert verify(path)[0] == 3


def test_names_stay_out(log: Path, scan: Path) -> None:
    text = log.read_text(encoding="utf-8")
    assert "Doe" not in text
    assert str(scan) not in text
    assert "reason" not in text


def test_equal_pixels_look_different_in_another_log(tmp_path: Path, scan: Path) -> None:
    digests = set()
    for name in ("a", "b"):
        audit = AuditLog(tmp_path / name)
        audit.record(PREDICTION, audit.pixels(read_image(scan)))
        digests.add(json.loads((tmp_path / name).read_text(encoding="utf-8").splitlines()[1])["pixels"])
    assert len(digests) == 2


def test_a_log_is_gone_on_with(log: Path) -> None:
    AuditLog(log).record(PREDICTION, None)
    assert verify(log)[0] == 11


@pytest.mark.parametrize("line", [2, 6, 10])
@pytest.mark.parametrize("change", ["removed", "edited", "doubled", "swapped"])
def test_every_change_shows(log: Path, line: int, change: str) -> None:
    lines = log.read_bytes().splitlines(keepends=True)
    if change == "removed":
        del lines[line - 1]
    elif change == "edited":
        lines[line - 1] = lines[line - 1].replace(b"rejected", b"rejecteD")
    elif change == "doubled":
        lines.insert(line, lines[line - 1])
    else:
        lines[line - 1 : line + 1] = reversed(lines[line - 1 : line + 1])
    log.write_bytes(b"".join(lines))
    with pytest.raises(AuditError, match=r"line \d+ does not follow from line \d+"):
        verify(log)


def test_a_cut_end_shows_by_the_head_that_was_kept(log: Path) -> None:
    _, head = verify(log)
    AuditLog(log).record(PREDICTION, None)
    assert verify(log, head)[0] == 11
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:8]))
    assert verify(log)[0] == 7
    with pytest.raises(AuditError, match="lines were removed from its end"):
        verify(log, head)


def test_half_a_line_is_named_and_the_next_one_stands_alone(log: Path) -> None:
    with log.open("ab") as file:
        file.write(b'{"time":"2026')
    with pytest.raises(AuditError, match="line 12 is not JSON"):
        verify(log)
    AuditLog(log).record(PREDICTION, None)
    assert json.loads(log.read_bytes().splitlines()[-1])["status"] == "rejected"


def test_other_files_are_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("my notes\n", encoding="utf-8")
    with pytest.raises(AuditError, match="is not an audit log"):
        AuditLog(path)
    assert path.read_text(encoding="utf-8") == "my notes\n"
    with pytest.raises(AuditError, match="cannot be written"):
        AuditLog(tmp_path / "none" / "audit.jsonl")


def test_no_prediction_without_its_line(bundle: Path, tmp_path: Path, scan: Path) -> None:
    path = tmp_path / "audit.jsonl"
    predictor = Predictor(bundle, backend="onnx", guard=False, audit=path)
    path.unlink()
    with pytest.raises(AuditError, match=r"cannot be written.*The prediction is withheld"):
        predictor.predict(scan)


def append(path: Path) -> int:
    audit = AuditLog(path)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: audit.record(PREDICTION, None), range(50)))
    return os.getpid()


def test_threads_and_processes_share_one_log(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    context = multiprocessing.get_context("forkserver")
    workers = [context.Process(target=append, args=(path,)) for _ in range(3)]
    for worker in workers:
        worker.start()
    append(path)
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert verify(path)[0] == 200


def test_command_line(log: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["verify", str(log)]) == 0
    out = capsys.readouterr().out
    assert "holds 10 predictions, unchanged" in out
    head = out.split("head ")[1].strip()
    assert main(["verify", str(log), "--head", head]) == 0
    log.write_bytes(log.read_bytes().replace(b"onnx", b"onnX", 1))
    assert main(["verify", str(log)]) == 1
    assert "AuditError" in capsys.readouterr().err
    with pytest.raises(SystemExit) as usage:
        main([])
    assert usage.value.code == 2
