"""What every command has in common."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from stageproof.benchmarks.__main__ import main as benchmark
from stageproof.export.__main__ import main as export
from stageproof.runtime.cli.exit_status import READER_LEFT
from stageproof.serving.archive import __main__ as score
from tests.helps import MODULES

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("train", "export", "runtime", "serving", "benchmarks")


@pytest.mark.parametrize("package", PACKAGES)
def test_a_command_in_a_message_is_quoted(package: str) -> None:
    """No f-string puts a path into a command by hand: `runtime.text.hints.command` quotes it."""
    for path in sorted((ROOT / package).rglob("*.py")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            suggested = re.search(r"python -m [\w.]+[^\":;,]*\{(?!command\(|shlex\.quote\(|quoted?\()", line)
            assert suggested is None, f"{path.relative_to(ROOT)}:{number}: {line.strip()}"


@pytest.mark.parametrize("command", MODULES)
def test_a_reader_that_leaves_early(command: str, helps) -> None:
    """As in `python -m train --help | head -1`: no traceback."""
    assert helps[command].errors_without_reader == ""
    assert helps[command].status_without_reader in (READER_LEFT, 0)  # argparse takes no notice


@pytest.mark.parametrize(
    ("main", "words", "name"),
    [
        (export, ["a.pth", "--to", "onnx", "--to", "openvino"], "--to"),
        (export, ["a.pth", "--precision=fp32", "--precision", "int8"], "--precision"),
        (benchmark, ["--only", "predict", "--only", "stream"], "--only"),
    ],
)
def test_no_value_of_a_repeated_list_is_dropped(main, words: list[str], name: str, capsys) -> None:
    assert main(words) == 2
    message = " ".join(capsys.readouterr().err.split())
    assert f"{name} is given 2 times, expected once with all values: {name} A B" in message


def test_inputs_of_an_archive_may_be_named_in_several_places() -> None:
    assert score._parser().parse_args(["bundle", "--in", "a", "b", "--out", "c", "--in", "d"]).inputs == ["a", "b", "d"]
