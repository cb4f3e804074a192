"""What every command has in common."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from stageproof.runtime.cli.exit_status import READER_LEFT

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("train", "export", "runtime", "benchmarks")


@pytest.mark.parametrize("package", PACKAGES)
def test_a_command_in_a_message_is_quoted(package: str) -> None:
    """No f-string puts a path into a command by hand: `runtime.text.hints.command` quotes it."""
    for path in sorted((ROOT / package).rglob("*.py")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            suggested = re.search(r"python -m [\w.]+[^\":;,]*\{(?!command\(|shlex\.quote\(|quoted?\()", line)
            assert suggested is None, f"{path.relative_to(ROOT)}:{number}: {line.strip()}"


def _commands() -> list[str]:
    """Every module that `python -m` runs."""
    found = []
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if 'if __name__ == "__main__":' in path.read_text(encoding="utf-8"):
                found.append(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__"))
    return found


@pytest.mark.parametrize("command", _commands())
def test_a_reader_that_leaves_early(command: str) -> None:
    """As in `python -m train --help | head -1`: no traceback."""
    arguments = [sys.executable, "-m", command, "--help"]
    with subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(120) in (READER_LEFT, 0)  # argparse takes no notice
