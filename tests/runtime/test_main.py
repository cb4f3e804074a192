"""The command line: text, JSON, CSV, resuming, and what the exit status says."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from stageproof.runtime import Prediction, Predictor
from stageproof.runtime.__main__ import main
from stageproof.runtime.audit.verification import check
from stageproof.runtime.cli.exit_status import READER_LEFT
from stageproof.runtime.cli.output import Progress, columns
from stageproof.runtime.labels import LABELS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path: Path, phantoms) -> Path:
    """Five scans at two depths, and a file that is no image by its name."""
    (tmp_path / "scans" / "deep").mkdir(parents=True)
    for index in range(5):
        name = f"deep/{index}.PNG" if index > 2 else f"{index}.png"
        (tmp_path / "scans" / name).write_bytes(phantoms.read(index))
    (tmp_path / "scans" / "notes.txt").write_text("x", encoding="utf-8")
    return tmp_path / "scans"


def test_text_fits_a_terminal(bundle: Path, scan: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["--bundle", str(bundle), str(scan), "--backend", "onnx"]) == 0
    captured = capsys.readouterr()
    name, answer, *rest = captured.out.splitlines()
    assert name == str(scan)
    assert "(CDR " in answer
    assert all(label in " ".join(rest) for label in ("NonDemented", "VeryMildDemented", "ModerateDemented"))
    assert max(map(len, [answer, *rest])) <= 80
    named, research = captured.err.splitlines()
    assert re.fullmatch(rf"bundle {bundle}, SHA-256 [0-9a-f]{{12}}, weights [0-9a-f]{{12}}: model.onnx in onnx", named)
    assert research == "Research use only: not a diagnosis."


def test_a_lone_artifact_says_once_and_in_each_result_that_it_has_no_guard(
    bundle: Path, folder: Path, capsys: pytest.CaptureFixture
) -> None:
    lone = str(bundle / "model.onnx")
    assert main(["--bundle", lone, str(folder)]) == 0
    captured = capsys.readouterr()
    assert captured.err.count("has no guard") == 1
    assert f"WARNING: {lone} is a lone artifact, which has no guard: every image gets a class" in captured.err
    assert captured.out.count("  note: guard: none") == 5
    assert main(["--bundle", lone, str(folder), "--json"]) == 0
    assert all(json.loads(line)["guard"] == "none" for line in capsys.readouterr().out.splitlines())
    assert main(["--bundle", lone, str(folder), "--csv"]) == 0
    assert {row["warnings"] for row in csv.DictReader(io.StringIO(capsys.readouterr().out))} == {"guard: none"}
    assert main(["--bundle", lone, str(folder), "--study"]) == 0
    assert "  note: guard: none" in capsys.readouterr().out


def test_json_is_a_prediction_a_line(bundle: Path, folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["--json", "--bundle", str(bundle), str(folder)]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [Path(line.pop("file")).name for line in lines] == ["0.png", "1.png", "2.png", "3.PNG", "4.PNG"]
    assert all(Prediction.from_dict(line).status == "ok" for line in lines)


def test_one_bad_image_stops_nothing(bundle: Path, folder: Path, capsys: pytest.CaptureFixture) -> None:
    (folder / "1.png").write_bytes(b"not an image")
    assert main(["--bundle", str(bundle), str(folder), str(folder / "none.png")]) == 1
    out = capsys.readouterr().out
    assert out.count("(CDR ") == 4
    assert out.count("  rejected: ") == 2
    assert "no such file" in out


def test_csv(bundle: Path, folder: Path, capsys: pytest.CaptureFixture) -> None:
    (folder / "1.png").write_bytes(b"")
    assert main(["--bundle", str(bundle), str(folder), "--csv"]) == 1
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert tuple(rows[0]) == columns(LABELS)
    assert [row["status"] for row in rows] == ["ok", "rejected", "ok", "ok", "ok"]
    assert rows[1]["label"] == rows[1]["NonDemented"] == ""
    assert "is empty (0 bytes)" in rows[1]["reason"]
    assert float(rows[0]["probability"]) == max(float(rows[0][label]) for label in LABELS)


def test_output_is_resumed(bundle: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    whole, partial = tmp_path / "whole.csv", tmp_path / "partial.csv"
    arguments = ["--bundle", str(bundle), str(folder), "--backend", "onnx"]
    assert main([*arguments, "--output", str(whole)]) == 0
    lines = whole.read_text(encoding="utf-8").splitlines(keepends=True)
    assert len(lines) == 6
    cut = lines[3][: len(lines[3]) // 2]
    partial.write_text("".join(lines[:3]) + cut, encoding="utf-8")  # stopped while it wrote the third
    assert main([*arguments, "--output", str(partial), "--resume"]) == 0
    resumed = partial.read_text(encoding="utf-8").splitlines(keepends=True)
    assert Path(f"{partial}.cut").read_text(encoding="utf-8") == cut + "\n", "kept aside"
    assert resumed[:3] == lines[:3]
    assert [line.split(",")[:3] for line in resumed] == [line.split(",")[:3] for line in lines]
    assert main([*arguments, "--output", str(partial), "--resume"]) == 0
    assert partial.read_text(encoding="utf-8") == "".join(resumed)
    assert capsys.readouterr().out == ""


def test_output_never_mixes_or_overwrites(bundle: Path, scan: Path, tmp_path: Path, capsys) -> None:
    path = tmp_path / "results.csv"
    arguments = ["--bundle", str(bundle), str(scan), "--output", str(path)]
    path.write_text("my table\n", encoding="utf-8")
    assert main(arguments) == 2
    assert "exists. Continue it with --resume" in capsys.readouterr().err
    assert main([*arguments, "--resume"]) == 2
    assert "has other columns than --output writes" in capsys.readouterr().err
    assert path.read_text(encoding="utf-8") == "my table\n"
    path.unlink()
    assert main(arguments) == 0
    content = path.read_text(encoding="utf-8")
    digest = next(csv.DictReader(io.StringIO(content)))["model_digest"]
    path.write_text(content.replace(digest, "0" * 64), encoding="utf-8")
    assert main([*arguments, "--resume"]) == 2
    assert "has results of another model" in capsys.readouterr().err


def test_study(bundle: Path, folder: Path, capsys: pytest.CaptureFixture) -> None:
    (folder / "1.png").write_bytes(b"")
    assert main(["--bundle", str(bundle), str(folder), "--study"]) == 0
    assert "5 slices, 4 used, 1 rejected" in capsys.readouterr().out
    assert main(["--bundle", str(bundle), str(folder), "--study", "--json"]) == 0
    study = json.loads(capsys.readouterr().out)
    assert study["rejected"] == [1]
    assert len(study["files"]) == len(study["slices"]) == 5


def test_info_and_self_test(guarded_bundle: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["--bundle", str(guarded_bundle), "--info", "--self-test"]) == 0
    out = capsys.readouterr().out
    for word in (
        "artifact   ",
        "engine     optimised for latency, concurrent calls: 1",
        "model",
        "input",
        "labels",
        "guard      rejects out-of-distribution",
        "candidates",
        "self-test  ok: 6",
    ):
        assert word in out
    assert main(["--bundle", str(guarded_bundle), "--info", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["guarded"] is True
    assert (facts["optimize_for"], facts["concurrent_calls"]) == ("latency", 1)
    assert len(facts["considered"]) >= 2


def test_many_images_are_predicted_for_throughput(
    bundle: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """The number of images is that which is still to be predicted; nothing but --info prints the mode."""
    loaded: list[str] = []

    class Watched(Predictor):
        def __init__(self, path: Path, **options: Any) -> None:
            loaded.append(options["optimize_for"])
            super().__init__(path, **options)

    monkeypatch.setattr("runtime.__main__.Predictor", Watched)
    monkeypatch.setattr("runtime.__main__.MANY_IMAGES", 4)
    options = ["--bundle", str(bundle), "--backend", "onnx", "--threads", "2"]
    output = ["--output", str(tmp_path / "results.csv")]
    four = sorted(map(str, folder.rglob("*.[pP][nN][gG]")))[:4]
    assert main([*options, *four, *output]) == 0
    assert main([*options, str(folder), *output, "--resume"]) == 0  # one of five is left
    assert main([*options, str(folder), "--csv"]) == 0
    assert loaded == ["latency", "latency", "throughput"]
    captured = capsys.readouterr()
    assert "throughput" not in captured.out + captured.err
    assert main([*options, str(folder), "--info"]) == 0
    assert "engine     optimised for throughput, concurrent calls: 2" in capsys.readouterr().out


def test_a_reader_that_leaves_early(bundle: Path) -> None:
    """As in `python -m runtime … | head -1`: no traceback."""
    command = [sys.executable, "-m", "runtime", "--bundle", str(bundle), "--info", "--json"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(60) == READER_LEFT


def test_a_rejected_image_is_not_answered(guarded_bundle: Path, tmp_path: Path, capsys) -> None:
    Image.new("L", (64, 64), 255).save(tmp_path / "white.png")
    assert main(["--bundle", str(guarded_bundle), str(tmp_path / "white.png")]) == 1
    assert (
        "rejected: it has almost no contrast at 32 x 32 pixels, like a blank image or noise" in capsys.readouterr().out
    )


def test_audit(bundle: Path, scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["--bundle", str(bundle), str(scan), "--audit", str(tmp_path / "log")]) == 0
    assert len((tmp_path / "log").read_text(encoding="utf-8").splitlines()) == 2
    anchor = check(tmp_path / "log").anchor
    assert f"audit log {tmp_path / 'log'}: anchor {anchor}\n" in capsys.readouterr().err


def test_standard_input_and_options_before_images(bundle: Path, scan: Path) -> None:
    command = [sys.executable, "-m", "runtime", "--json", "--bundle", str(bundle), "--backend", "onnx", "-"]
    done = subprocess.run(command, input=scan.read_bytes(), capture_output=True, cwd=ROOT, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["status"] == "ok"
    done = subprocess.run(command, input=b"", capture_output=True, cwd=ROOT, timeout=120, check=False)
    assert done.returncode == 1
    assert json.loads(done.stdout)["code"] == "unreadable"


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ([], "no image was given. For example: python -m runtime --bundle bundle scan.jpg"),
        (["a.png", "--resume"], "--resume needs --output"),
        (["a.png", "--output", "x.csv", "--json"], "--output writes CSV"),
        (["a.png", "--csv", "--json"], "not allowed with"),
        (["a.png", "--workers", "0"], "--workers is 0"),
        (["a.png", "--audit-key", "key"], "--audit-key needs --audit"),
        (["a.png", "--backend", "caffe"], "invalid choice: 'caffe'"),
    ],
)
def test_usage(arguments: list[str], match: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as usage:
        main(arguments)
    assert usage.value.code == 2
    assert match in capsys.readouterr().err


def test_a_bundle_that_cannot_serve_is_usage(tmp_path: Path, bundle: Path, scan: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["scan.jpg"]) == 2
    assert "InputError: no bundle was given. Make one with" in capsys.readouterr().err
    assert main(["--bundle", "none", str(scan)]) == 2
    assert "BundleError: none does not exist. Make a bundle with" in capsys.readouterr().err
    assert main(["--bundle", str(bundle), "scan.jpg", "--precision", "int2"]) == 2
    assert "InputError: The bundle has no artifact" in capsys.readouterr().err


def test_an_empty_folder_is_said_to_be_one(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "empty").mkdir()
    assert main(["--bundle", str(bundle), str(tmp_path / "empty")]) == 1
    assert "is a folder; expected one image file" in capsys.readouterr().out


def test_dicom_files_without_a_suffix_are_found(bundle: Path, tmp_path: Path, capsys) -> None:
    pydicom = pytest.importorskip("pydicom", reason="the extra dicom")
    source = Path(pydicom.__file__).parent / "data" / "test_files" / "MR_small.dcm"
    (tmp_path / "study").mkdir()
    shutil.copy(source, tmp_path / "study" / "IM000001")
    (tmp_path / "study" / "README").write_text("x", encoding="utf-8")
    main(["--bundle", str(bundle), str(tmp_path / "study"), "--csv"])
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [Path(row["file"]).name for row in rows] == ["IM000001"]
    assert rows[0]["code"] != "unreadable"


def test_progress_on_a_terminal_only() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    clock = iter([0.0, 0.1, 1.0, 2.0]).__next__
    terminal, pipe = Terminal(), io.StringIO()
    progress, silent = Progress(3, terminal, clock), Progress(3, pipe, iter(range(9)).__next__)
    for _ in range(3):
        progress.advance()
        silent.advance()
    shown = [line.strip() for line in terminal.getvalue().split("\r") if line]
    assert shown == ["2/3 images, 2.0 images/s, 0 s left", "3/3 images, 1.5 images/s, 0 s left"]
    assert pipe.getvalue() == ""
