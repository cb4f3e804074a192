"""Messages are log records: a library is silent, a command prints each once, as text, beside its progress bars."""

from __future__ import annotations

import ast
import io
import logging
import os
import re
import subprocess
import sys
import time
from contextlib import redirect_stderr
from pathlib import Path

import pytest

from stageproof.runtime.cli import messages as plain
from stageproof.runtime.text.escapes import escaping
from stageproof.train.distributed.supervisor import run_processes
from stageproof.train.terminal import messages
from stageproof.train.terminal.bars import bar, display
from stageproof.train.terminal.rich_handler import RichHandler
from tests.records import logged

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("stageproof", "runtime", "train", "export", "serving", "benchmarks")
logger = logging.getLogger("stageproof.train.example")

HOSTILE = "reading [red]a[/red] :smile: \x1b[2K\u202e\u2028\n\udcff.png " + "x" * 200
SHOWN = r"reading [red]a[/red] :smile: \x1b[2K\u202e\u2028\n\xff.png " + "x" * 200


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(params=[Terminal, io.StringIO], ids=["terminal", "pipe"])
def stream(request, monkeypatch) -> io.StringIO:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    return request.param()


def test_a_library_prints_nothing_unless_asked():
    say = "import logging, stageproof; {}; logging.getLogger('stageproof.train.x').warning('one')"
    for asked, expected in (
        ("None", ""),
        ("logging.basicConfig(format='%(name)s %(message)s')", "stageproof.train.x one\n"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", say.format(asked)], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert (done.stdout, done.stderr) == ("", expected)


@pytest.mark.parametrize("shown", [plain.shown, messages.shown], ids=["plain", "rich"])
def test_a_command_prints_text_as_it_is_in_one_line(stream, shown):
    with redirect_stderr(stream), escaping(), shown():
        logger.debug("detail")
        logger.info(HOSTILE)
        logger.warning("100% full")
    assert stream.getvalue() == f"{SHOWN}\nWARNING: 100% full\n"


def test_commands_with_rich_use_it():
    with messages.shown():
        assert type(plain.LOGGER.handlers[-1]) is RichHandler
    assert not plain.is_shown()


def test_without_rich_the_text_is_the_same(stream, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "rich"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "stageproof.train.terminal.rich_handler")
    monkeypatch.setitem(sys.modules, "rich", None)  # import raises ModuleNotFoundError
    with redirect_stderr(stream), messages.shown():
        logger.info(HOSTILE)
        with bar("work", 2) as advance:
            advance()
    assert stream.getvalue() == f"{SHOWN}\n"


def test_a_message_is_printed_once(stream):
    """Also where a library has configured the root logger, and where one command calls another."""
    root = logging.StreamHandler(stream)
    logging.getLogger().addHandler(root)
    before = plain.LOGGER.level, plain.LOGGER.propagate, list(plain.LOGGER.handlers)
    try:
        with redirect_stderr(stream), messages.shown(), plain.shown(), messages.shown():
            logger.info("one")
    finally:
        logging.getLogger().removeHandler(root)
    assert stream.getvalue() == "one\n"
    assert (plain.LOGGER.level, plain.LOGGER.propagate, list(plain.LOGGER.handlers)) == before


@pytest.mark.parametrize("shown", [plain.shown, messages.shown], ids=["plain", "rich"])
def test_a_closed_pipe_ends_the_work_as_print_would(monkeypatch, shown):
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr("sys.stderr", Closed())
    with pytest.raises(BrokenPipeError), shown():
        logger.info("one")


def test_other_processes_of_torchrun_are_silent(stream, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    for rank in "01":
        monkeypatch.setenv("RANK", rank)
        with redirect_stderr(stream), messages.shown():
            logger.info(f"rank {rank}")
    assert stream.getvalue() == "rank 0\n"


def test_a_bar_shows_steps_and_time_left_in_the_terminal_of_a_command(stream):
    with redirect_stderr(stream), bar("a library's work", 3) as advance:
        advance()
    assert stream.getvalue() == ""
    with redirect_stderr(stream), messages.shown(), bar("all [b]\x1b[2K", 2) as outer:
        with bar("batches of slices", 30) as advance:
            for _ in range(3):
                advance(10)
            logger.info("between")
        time.sleep(0.15)  # bars are drawn at most ten times a second
        outer()
    assert display() is None
    text = stream.getvalue()
    if isinstance(stream, Terminal):
        for part in (r"all [b]\x1b[2K", "batches of slices", "30/30", "1/2", "0:00:00"):
            assert part in text
        assert "\x1b[2Kbetween\n" in text, "on a line of its own, above the bars"
        assert text.endswith("\x1b[?25h\r"), "no bar remains, and the cursor is visible"
    else:
        assert text == "between\n"


def test_a_bar_ends_with_an_interrupt(stream):
    with pytest.raises(KeyboardInterrupt), redirect_stderr(stream), messages.shown(), bar("work", 2):
        raise KeyboardInterrupt
    assert stream.getvalue() == "" or stream.getvalue().endswith("\x1b[?25h\r")


def ranks_at_work() -> str:
    """Main function of a process of a run."""
    log = logging.getLogger("stageproof.train.example")
    log.debug("detail")
    log.info(f"rank {os.environ['RANK']}")
    return os.environ["RANK"]


def test_only_rank_0_is_heard_and_once(capfd):
    with logged() as lines:
        assert run_processes(ranks_at_work, (), 2, {}) == "0"
    assert lines == ["rank 0"]
    assert capfd.readouterr().err == ""
    with messages.shown():
        assert run_processes(ranks_at_work, (), 2, {}) == "0"
    assert capfd.readouterr().err == "rank 0\n"


def test_nothing_takes_a_function_to_print_with_and_loggers_have_the_name_of_their_module():
    found = []
    for path in (path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)):
            found += [
                f"{path}:{node.lineno} {node.arg}" for _ in "x" if isinstance(node, ast.arg) and node.arg == "say"
            ]
        for name in re.findall(r"^logger = logging\.getLogger\((.+?)\)", text, re.MULTILINE):
            module = "stageproof." + ".".join(path.relative_to(ROOT).parent.parts)
            expected = f'"{module}"' if path.name == "__main__.py" else "__name__"
            found += [f"{path}: {name}"] if name != expected else []
    assert found == []
