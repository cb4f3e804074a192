"""The audit log: a line a prediction, no patient data, and a chain that shows every change."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from stageproof.runtime import Predictor, read_image
from stageproof.runtime.audit.__main__ import main
from stageproof.runtime.audit.chain import Key, State, make_key, read_key, signed, write_head
from stageproof.runtime.audit.log import AuditLog, pixels_digest
from stageproof.runtime.audit.verification import check, verify
from stageproof.runtime.errors import AuditError
from stageproof.runtime.prediction import Prediction, Timings

ROOT = Path(__file__).resolve().parents[2]

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


def rewritten(log: Path, key: Key, change: Callable[[list[dict]], object]) -> None:
    """The log as an attacker writes it who knows the format: every line chained and signed again, by `key`."""
    entries = [json.loads(line) for line in log.read_bytes().splitlines()]
    change(entries)
    previous, lines = "", []
    for entry in entries:
        entry.pop("mac", None)
        entry |= {"previous": previous} if previous else {"key": key.name}
        lines.append(signed(entry, key))
        previous = hashlib.sha256(lines[-1]).hexdigest()
    log.write_bytes(b"".join(line + b"\n" for line in lines))


def relabel(entries: list[dict]) -> None:
    entries[-1]["label"] = "NonDemented"


def drop_last(entries: list[dict]) -> None:
    del entries[-3:]


def begin_anew(entries: list[dict]) -> None:
    entries[0]["salt"] = "00" * 16


@pytest.mark.parametrize("change", [relabel, drop_last, begin_anew])
def test_a_rewritten_tail_does_not_verify(log: Path, tmp_path: Path, change: Callable) -> None:
    """Without the key the lines can be chained again, and not signed."""
    forged = make_key(tmp_path / "forged.key")
    rewritten(log, forged, change)
    with pytest.raises(AuditError, match=r"was started with key .* but .*audit.jsonl.key is key"):
        verify(log)
    with pytest.raises(AuditError, match=r"audit.jsonl.head was changed, is damaged, or belongs to another"):
        verify(log, key=forged.path)
    with pytest.raises(AuditError, match="was started with key"):
        AuditLog(log)


@pytest.mark.parametrize("kept", [1, 2, 10])
def test_removed_lines_at_the_end_show(log: Path, kept: int) -> None:
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:kept]))
    with pytest.raises(
        AuditError, match=rf"holds {kept - 1} predictions.*head records 10: lines were removed from its end"
    ):
        verify(log)
    with pytest.raises(AuditError, match="lines were removed from its end"):
        AuditLog(log)
    head = Path(f"{log}.head")
    head.rename(head.with_suffix(".gone"))
    for refused in (verify, AuditLog):
        with pytest.raises(AuditError, match=r"lines removed from the end of .* cannot be detected"):
            refused(log)


@pytest.mark.parametrize("content", [None, b""])
def test_a_log_that_is_gone_is_not_begun_anew(log: Path, content: bytes | None) -> None:
    log.unlink()
    if content is not None:
        log.write_bytes(content)
    with pytest.raises(AuditError, match="records 10 predictions: they were removed"):
        AuditLog(log)


def test_an_older_copy_of_everything_shows_by_an_anchor(log: Path) -> None:
    """What an attacker can do who may write all three files: put back how they were. An anchor elsewhere shows it."""
    then = {path: path.read_bytes() for path in (log, Path(f"{log}.head"))}
    before = check(log).anchor
    audit = AuditLog(log)
    audit.record(PREDICTION, None)
    after = audit.anchor
    assert check(log, anchor=before).anchor == after == f"11:{verify(log)[1]}"
    for path, content in then.items():
        path.write_bytes(content)
    assert verify(log)[0] == 10
    with pytest.raises(AuditError, match="holds 10 predictions and does not match the anchor, which has 11"):
        check(log, anchor=after)
    with pytest.raises(AuditError, match="expected N:DIGEST"):
        check(log, anchor="eleven")


def test_an_anchor_shows_what_the_holder_of_the_key_rewrote(log: Path) -> None:
    before, key = check(log).anchor, read_key(Path(f"{log}.key"))
    rewritten(log, key, relabel)
    lines = log.read_bytes().splitlines()
    salt = json.loads(lines[0])["salt"]
    write_head(log, salt, State(log.stat().st_size, 11, 10, hashlib.sha256(lines[-1]).hexdigest()), key)
    assert verify(log)[0] == 10, "who has the key can write anything"
    with pytest.raises(AuditError, match="does not match the anchor, which has 10"):
        check(log, anchor=before)


@pytest.mark.parametrize("half", [b'{"time":"2026', b"", b'{"time":1}', b"\0" * 40])
@pytest.mark.parametrize("end", [b"", b"\n"])
def test_half_a_line_is_recovered_and_recorded(log: Path, half: bytes, end: bytes) -> None:
    """What a process leaves that dies while it writes."""
    with log.open("ab") as file:
        file.write(half + end)
    report = check(log)
    assert report.state.predictions == 10
    assert report.unfinished == len(half)
    if half == end == b"":
        return
    AuditLog(log).record(PREDICTION, None)
    report = check(log)
    assert (report.state.predictions, report.state.recovered, report.unfinished) == (11, 1, 0)
    recovered = json.loads(log.read_bytes().splitlines()[-2])["recovered"]
    assert recovered == {"bytes": len(half), "sha256": hashlib.sha256(half).hexdigest()}
    assert "recovered: 1 line" in str(report)
    AuditLog(log).record(PREDICTION, None)
    assert verify(log)[0] == 12


def test_nobody_else_can_record_a_recovery(log: Path, tmp_path: Path) -> None:
    lines = log.read_bytes().splitlines()
    half = lines[5][:40]
    entry = {"recovered": {"bytes": 40, "sha256": hashlib.sha256(half).hexdigest()}}
    entry["previous"] = hashlib.sha256(half).hexdigest()
    forged = signed(entry, make_key(tmp_path / "forged.key"))
    log.write_bytes(b"\n".join([*lines[:5], half, forged, *lines[6:], b""]))
    with pytest.raises(AuditError, match="line 6 does not follow from line 5"):
        verify(log)


def test_a_log_whose_first_line_was_cut_short_is_begun_again(tmp_path: Path, log: Path) -> None:
    path = tmp_path / "new.jsonl"
    AuditLog(path)
    path.write_bytes(path.read_bytes()[:60])
    AuditLog(path).record(PREDICTION, None)
    assert verify(path)[0] == 1


def test_lines_that_the_head_does_not_know_yet(log: Path) -> None:
    """A process died between a line and the head: the line is signed, so it counts."""
    head = Path(f"{log}.head")
    then = head.read_bytes()
    audit = AuditLog(log)
    audit.record_all([(PREDICTION, None)] * 3)
    head.write_bytes(then)
    assert verify(log)[0] == 13
    AuditLog(log)
    assert head.read_bytes() != then
    assert verify(log)[0] == 13


OLD = [
    {"stageproof_audit": 1, "begun": "2026-01-01T00:00:00.000+00:00", "salt": "ab" * 16},
    *[{"n": i} for i in range(3)],
]


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A log as version 0.1 wrote it."""
    previous, data = "", b""
    for entry in OLD:
        line = json.dumps({**entry, **({"previous": previous} if previous else {})}).encode()
        previous = hashlib.sha256(line).hexdigest()
        data += line + b"\n"
    (tmp_path / "old.jsonl").write_bytes(data)
    return tmp_path / "old.jsonl"


def test_a_log_of_version_0_1_verifies_and_is_called_unkeyed(old: Path, capsys) -> None:
    assert main(["verify", str(old)]) == 0
    out = capsys.readouterr().out
    assert "holds 3 predictions" in out
    assert "unkeyed: a log of version 0.1" in out
    with pytest.raises(AuditError, match=r"which has no key. It can still be verified; give another file"):
        AuditLog(old)
    lines = old.read_bytes().splitlines(keepends=True)
    old.write_bytes(b"".join([lines[0], lines[2], lines[1], lines[3]]))
    assert main(["verify", str(old)]) == 1
    half = b'{"time":"2'
    entry = {"n": 4, "previous": hashlib.sha256(half).hexdigest()}
    old.write_bytes(b"".join(lines) + half + b"\n" + json.dumps(entry).encode() + b"\n")
    assert verify(old)[0] == 4, "0.1 chained the line after a half one to it"


def test_a_keyed_log_cannot_be_replaced_by_one_without_a_key(old: Path, log: Path, tmp_path: Path) -> None:
    old.replace(log)
    with pytest.raises(AuditError, match=r"is a log without a key, but .* belongs to a log with a key"):
        verify(log)
    for beside in ("key", "head"):
        Path(f"{log}.{beside}").rename(tmp_path / beside)
    with pytest.raises(AuditError, match="is a log without a key"):
        verify(log, key=tmp_path / "key")


def test_a_key_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, key = tmp_path / "log", tmp_path / "safe" / "key"
    with pytest.raises(AuditError, match=r"audit key .* cannot be read"):
        AuditLog(path, key)
    key.parent.mkdir()
    assert main(["key", str(key)]) == 0
    assert key.stat().st_mode & 0o777 == 0o600
    assert main(["key", str(key)]) == 2, "never overwritten"
    AuditLog(path, key).record(PREDICTION, None)
    assert not Path(f"{path}.key").exists()
    assert verify(path, key=key)[0] == 1
    with pytest.raises(AuditError, match=r"key .*log.key cannot be read.*Give its path"):
        verify(path)
    monkeypatch.setenv("STAGEPROOF_AUDIT_KEY", str(key))
    assert verify(path)[0] == 1
    short = tmp_path / "short"
    short.write_bytes(b"secret\n")
    with pytest.raises(AuditError, match="has 6 bytes, expected 32 to 4096"):
        AuditLog(tmp_path / "other", short)


FULL = """
import resource, sys
from pathlib import Path
from runtime.audit import AuditLog
from runtime.errors import AuditError
from tests.runtime.test_audit import PREDICTION
log = Path(sys.argv[1])
audit = AuditLog(log)
audit.record(PREDICTION, None)
size = log.stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, size + 100))  # so that a part of the line fits
try:
    audit.record_all([(PREDICTION, None)] * 2)
except AuditError as error:
    print(error)
print(log.stat().st_size - size)
"""


def test_a_full_disk_is_an_error_and_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log"
    command = [sys.executable, "-c", FULL, str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    said, grown = done.stdout.splitlines()
    assert "cannot be written (File too large). The prediction is withheld" in said
    assert grown == "0"
    assert verify(path)[0] == 1
    status = os.statvfs(tmp_path)
    full = os.statvfs_result([*status[:4], 0, *status[5:]])
    monkeypatch.setattr(os, "statvfs", lambda path: full)
    with pytest.raises(AuditError, match="its disk has 0 bytes left"):
        AuditLog(path)


def test_what_is_no_file_is_refused_at_once() -> None:
    with pytest.raises(AuditError, match="/dev/full is not a regular file"):
        AuditLog(Path("/dev/full"))


def test_a_log_that_another_process_keeps_locked(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    audit = AuditLog(log)
    monkeypatch.setattr("runtime.audit.log._WAIT_S", 0.01)
    with log.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(AuditError, match="locked by another process"):
            audit.record(PREDICTION, None)
    audit.record(PREDICTION, None)


def test_a_batch_is_on_the_disk_before_its_first_prediction(
    bundle: Path, tmp_path: Path, scan: Path, monkeypatch
) -> None:
    path, synced = tmp_path / "log", []
    real = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda handle: (synced.append(os.fstat(handle).st_size), real(handle)))
    predictor = Predictor(bundle, backend="onnx", guard=False, audit=path)
    stream = predictor.stream([scan] * 8, batch_size=4)
    next(stream)
    assert verify(path)[0] == 4
    assert synced == [path.stat().st_size]
    assert len(list(stream)) == 7
    assert len(synced) == 2
    assert predictor.audit_anchor == f"8:{verify(path)[1]}"


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
    assert main(["verify", str(log), "--anchor", f"10:{head}"]) == 0
    assert main(["verify", str(log), "--anchor", f"11:{head}"]) == 1
    assert main(["verify", str(log), "--head", head]) == 0
    log.write_bytes(log.read_bytes().replace(b"onnx", b"onnX", 1))
    assert main(["verify", str(log)]) == 1
    assert "AuditError" in capsys.readouterr().err
    for wrong in (["verify", str(log), "--anchor", "x"], ["verify", f"{log}.none"], ["key"]):
        with pytest.raises(SystemExit) as usage:
            main(wrong)
        assert usage.value.code == 2
    with pytest.raises(SystemExit) as usage:
        main([])
    assert usage.value.code == 2
