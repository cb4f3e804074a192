"""What others wrote is text wherever it is shown: it moves no cursor, turns no direction, is no formula, no markup."""

from __future__ import annotations

import csv
import io
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from stageproof.runtime.cli.exit_status import report_error
from stageproof.runtime.cli.output import Progress, csv_line, row, text
from stageproof.runtime.errors import ImageError, TrainingError
from stageproof.runtime.labels import LABELS
from stageproof.runtime.prediction import Prediction, Timings
from stageproof.runtime.text.escapes import Escaping, cell, from_cell, line, lines
from stageproof.runtime.text.hints import command

REPOSITORY = Path(__file__).parents[2]
HOSTILE = [
    "scan.png\n  NonDemented (CDR 0)  99.9%",
    "\x1b[2K\x1b[1A  NonDemented",
    "a\rNonDemented",
    "\x9b2K",  # CSI as one character
    "\u202egnp.nacs",
    "\u2066a\u2069",
    "a\u2028b\u0085c",
    "bad\udcff.png",
    "tag\U000e0041",
    "\x00\x07\x7f",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_nothing_that_cannot_be_seen_reaches_any_medium(name):
    for shown in (line(name), cell(name)):
        assert shown.isprintable(), shown
        shown.encode("utf-8")
    assert lines(name).replace("\n", "").isprintable()


@pytest.mark.parametrize("name", [*HOSTILE, "=1+1", "+1", "-1", "@x", "\t=1", "＝1", "'=1", "''=1"])
def test_a_csv_value_is_no_formula_and_can_be_read_back(name):
    value = cell(name)
    assert value[0] not in "=+-@\t\r＝＋－＠"
    (read,) = next(csv.reader(io.StringIO(csv_line([value]))))
    assert from_cell(read) == name


def test_different_names_stay_different_and_plain_ones_as_they_are():
    names = ["a\x1b", r"a\x1b", "a\n", r"a\n", "a\\", "a\\\\", "\udc9b", "\x9b", "'=1", "=1", "a'b", "ä b.png", "it's"]
    assert len({cell(name) for name in names}) == len(names)
    assert [from_cell(cell(name)) for name in names] == names
    for plain in ("MildDemented/p01_s3.png", "ä b.png", "it's", "-.png"[1:], r"C:\scans\a.png"):
        assert cell(plain) == plain


def prediction(**values) -> Prediction:
    unset = dict.fromkeys(Prediction.__dataclass_fields__)
    rest = {"probabilities": {}, "warnings": (), "timings": Timings(0, 0, 0), "status": "unreadable", "reason": "x"}
    rest["guard"] = "none"
    return Prediction(**{**unset, **rest, **values})


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_name_forges_no_result(name):
    said = text(name, prediction(reason=name))
    assert len(said.split("\n")) == 3  # name, result, note
    assert said.replace("\n", "").isprintable()
    assert row(name, prediction(reason=name), LABELS).count("\n") == 1


def test_an_error_is_one_line_unless_it_carries_a_traceback(capsys):
    assert report_error(ImageError("a\n\x1b[2Kb")) == 2
    assert capsys.readouterr().err == "ImageError: a\\n\\x1b[2Kb\n"
    report_error(TrainingError("a\n\x1bb"))
    assert capsys.readouterr().err == "TrainingError: a\n\\x1bb\n"


@pytest.mark.parametrize("name", ["a b", "it's\n", "\x1b[2K'\\", "bad\udcff"])
def test_a_hint_is_one_line_and_a_shell_takes_it_as_the_name(name):
    hint = command("runtime", name)
    assert hint.isprintable()
    script = f"printf '%s' {hint.removeprefix('python -m runtime ')}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, check=True)
    assert done.stdout == os.fsencode(name)
    assert name != "a b" or shlex.split(hint)[-1] == name


def test_a_stream_escapes_all_but_its_own_progress_bar():
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    below = Terminal()
    stream = Escaping(below)
    print("a\x1b[2K\rb\nc", file=stream)
    bar = Progress(2, stream, clock=iter(range(9)).__next__)
    bar.advance()
    assert below.getvalue().startswith("a\\x1b[2K\\rb\nc\n\r1/2 images")


@pytest.mark.skipif(sys.platform == "win32", reason="file names are bytes on POSIX")
@pytest.mark.parametrize("form", [[], ["--csv"], ["--json"]])
def test_an_undecodable_name_is_answered_like_others(bundle, phantoms, tmp_path, form):
    path = os.fsencode(tmp_path / "bad") + b"\xff\x1b[2K.png"
    Path(os.fsdecode(path)).write_bytes(phantoms.read(0))
    done = subprocess.run(
        [sys.executable, "-m", "runtime", "--bundle", str(bundle), os.fsdecode(path), *form],
        cwd=REPOSITORY,
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert done.returncode in (0, 1), done.stderr
    assert b"Traceback" not in done.stderr
    assert b"\x1b" not in done.stdout + done.stderr
    assert b"xff" in done.stdout or b"dcff" in done.stdout
