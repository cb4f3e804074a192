"""Processes of a run are started, heard and ended together."""

from __future__ import annotations

import os
import signal
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from runtime.errors import DatasetError
from train.supervisor import Failure, Stopped, run_processes


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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_all_and_handlers_are_put_back(tmp_path, number, request):
    def ignored(*_: object) -> None:
        """In place of the default, which would end the test's own process where the supervisor misses the signal."""

    request.addfinalizer(partial(signal.signal, number, signal.signal(number, ignored)))

    def send() -> None:
        while len(list(tmp_path.iterdir())) < 2:  # the test's own time-out ends it
            time.sleep(0.05)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=send)
    thread.start()
    with pytest.raises(Stopped):
        run_processes(waits, (str(tmp_path),), 2, {})
    thread.join()
    assert signal.getsignal(number) is ignored


def test_what_lies_in_the_working_folder_is_not_imported(tmp_path, monkeypatch):
    for name in ("multiprocessing", "pickle", "numpy"):
        (tmp_path / f"{name}.py").write_text("from pathlib import Path; Path('imported').touch(); raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    assert run_processes(places, ("",), 1, {"SAID": "x"}) == "0 0 1 1 x"
    assert not (tmp_path / "imported").exists()
    assert "PYTHONSAFEPATH" not in os.environ
