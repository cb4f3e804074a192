"""What a child process logs and how far it is arrive in its parent, once, and its log has no details."""

from __future__ import annotations

import logging
import os
import signal

import pytest

from stageproof.export.engines.child_process import run_in_child_process
from stageproof.runtime.errors import ExportError
from stageproof.train.terminal.bars import bar, displayed_by
from tests.records import logged

logger = logging.getLogger("stageproof.export.example")


class Drawn:
    """A display that records its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple] = []

    def update(self, *call: object) -> None:
        self.calls.append(call)

    def remove(self, what: str) -> None:
        self.calls.append((what,))


def work(steps: int) -> int:
    logger.debug("a detail: %s", "Zyxwvutsson")
    logger.info("building\x1b[2K")
    with bar("comparing", steps) as advance:
        for _ in range(steps):
            advance()
    logger.warning("act")
    return steps


def fail() -> None:
    logger.info("about to fail")
    raise ExportError("no such graph")


def die() -> None:
    with bar("comparing", 2) as advance:
        advance()
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def drawn():
    shows = Drawn()
    with displayed_by(shows):
        yield shows


def test_records_and_bars_arrive_in_order_and_once(tmp_path, said, drawn, capfd):
    assert run_in_child_process(work, (2,), tmp_path / "logs" / "x.log") == 2
    assert said == [r"building\x1b[2K", "WARNING: act"]
    assert drawn.calls == [("comparing", 0, 2), ("comparing", 1, 2), ("comparing", 2, 2), ("comparing",)]
    assert (tmp_path / "logs" / "x.log").read_text() == "building\\x1b[2K\nWARNING: act\n"
    assert capfd.readouterr().err == ""


def test_details_reach_a_parent_that_wants_them_and_no_log(tmp_path, caplog):
    caplog.set_level(logging.DEBUG, "stageproof")
    run_in_child_process(work, (1,), tmp_path / "x.log")
    assert caplog.messages[0] == "a detail: Zyxwvutsson"
    assert "Zyxwvutsson" not in (tmp_path / "x.log").read_text()


def test_a_parent_that_wants_nothing_gets_nothing_and_the_log_is_written(tmp_path, capfd):
    run_in_child_process(work, (1,), tmp_path / "x.log")
    assert capfd.readouterr().err == ""
    assert (tmp_path / "x.log").read_text().startswith("building")


def test_a_failure_is_raised_after_what_was_logged(tmp_path):
    with pytest.raises(ExportError, match="no such graph"), logged() as said:
        run_in_child_process(fail, (), tmp_path / "x.log")
    assert said == ["about to fail"]


def test_the_bar_of_a_process_that_dies_is_removed(tmp_path, drawn):
    with pytest.raises(ChildProcessError, match="ended with -9"):
        run_in_child_process(die, (), tmp_path / "x.log")
    assert drawn.calls[-1] == ("comparing",)
