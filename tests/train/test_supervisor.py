"""Processes of a run are started, heard and ended together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stageproof.runtime.errors import DatasetError
from stageproof.train.distributed.supervisor import Failure, Stopped, run_processes

ROOT = Path(__file__).parents[2]


def places(folder: str) -> str:
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "SAID")
    return " ".join(os.environ[name] for name in names)


def fails(how: str) -> None:
    if os.environ["RANK"] == "1":
        if how == "own":
            raise DatasetError("no slices")
        if how == "other":
            raise ZeroDivisionError("gave up")
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "killed":
        time.sleep(0.3)
        raise RuntimeError("connection closed by peer")  # as a process says that waited for the other
    time.sleep(600)


def waits(path: str) -> None:
    Path(path, os.environ["RANK"]).touch()
    time.sleep(600)


def test_the_answer_is_the_first_process_s(tmp_path):
    assert run_processes(places, (str(tmp_path),), 2, {"SAID": "x"}) == "0 0 2 2 x"
    assert "SAID" not in os.environ


@pytest.mark.parametrize(
    ("how", "kind", "message"),
    [
        ("own", "DatasetError", "no slices"),
        ("other", "ZeroDivisionError", "gave up"),
        ("killed", "", "it was ended by signal SIGKILL (the system may have been out of memory)"),
    ],
)
def test_one_that_fails_ends_the_others_and_is_the_reason(how, kind, message):
    with pytest.raises(Failure) as caught:
        run_processes(fails, (how,), 2, {})
    failure = caught.value
    assert (failure.rank, failure.kind, failure.message) == (1, kind, message)
    assert ("in fails" in failure.trace) == (how == "other")


def reports(number: int, folder: str) -> None:
    """In a process of its own: how `run_processes` ended, and whether the handler of before is back.

    In the tests' process a signal may end everything: faulthandler's stack for signals is too small for the registers
    of a CPU with AMX, once a network has used them.
    """

    def before(*_: object) -> None: ...

    signal.signal(number, before)
    try:
        run_processes(waits, (folder,), 2, {})
    except Stopped:
        sys.stdout.write(f"stopped {signal.getsignal(number) is before}")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_all_and_handlers_are_put_back(tmp_path, number):
    script = f"from tests.train.test_supervisor import reports; reports({int(number)}, {str(tmp_path)!r})"
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        while len(list(tmp_path.iterdir())) < 2:  # the test's own time-out ends it
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(number)
        assert process.communicate()[0] == "stopped True"
    assert process.returncode == 0


def test_what_lies_in_the_working_folder_is_not_imported(tmp_path, monkeypatch):
    for name in ("multiprocessing", "pickle", "numpy"):
        (tmp_path / f"{name}.py").write_text("from pathlib import Path; Path('imported').touch(); raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    assert run_processes(places, ("",), 1, {"SAID": "x"}) == "0 0 1 1 x"
    assert not (tmp_path / "imported").exists()
    assert "PYTHONSAFEPATH" not in os.environ
