"""A contender in a process of its own: asked, timed there, ended; and what it says when it fails."""

from __future__ import annotations

import pytest

from stageproof.benchmarks.contenders.worker import Contender, Worker
from stageproof.benchmarks.machine import circumstances as machine
from stageproof.runtime.errors import BackendError

MODULE = """
import os, time

class Sleeper:
    def __init__(self, seconds):
        self.seconds, self.stages = seconds, {}
    def answer(self, image):
        if image == b"die":
            os.write(2, b"out of patience\\n")
            os._exit(3)
        if image == b"fail":
            raise ValueError("no such image")
        time.sleep(self.seconds)
        self.stages = {"compute": self.seconds * 1e3}
        return [0.25, 0.75] if image == b"b" else [1.0, 0.0]
    def answer_all(self, images):
        return [self.answer(image) for image in images]

def load(seconds):
    print("this must not reach anybody's output")
    return Sleeper(seconds)
"""


@pytest.fixture
def contender(tmp_path, monkeypatch):
    (tmp_path / "sleeper_of_a_test.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    return Contender("sleeper", "peer", "none", "fp32", 1, "", "sleeper_of_a_test", {"seconds": 0.02})


def test_a_worker_answers_times_itself_and_ends(contender, tmp_path, capfd):
    images = [b"a", b"b", b"c"]
    with Worker(contender, images, tmp_path / "log") as worker:
        assert 0 < worker.load_s < worker.first_answer_s
        times, stages = worker.request("burst", 1, 2)
        assert all(spent >= 20 for spent in times)
        assert stages == [{"compute": 20.0}] * 2
        assert worker.request("query", 0, 2) >= 40
        assert worker.request("throughput", 3, 2) >= 0.06
        assert worker.request("predicted_classes") == [0, 1, 0]
        assert 0 < worker.request("peak_rss") < machine._memory()
        process = worker._process
    assert not process.is_alive()
    assert capfd.readouterr().out == ""
    assert "must not reach" in (tmp_path / "log").read_text()


def test_what_it_raises_is_raised_here(contender, tmp_path):
    with (
        pytest.raises(BackendError, match="sleeper failed: ValueError: no such image"),
        Worker(contender, [b"a", b"fail"], tmp_path / "log") as worker,
    ):
        worker.request("burst", 1, 1)


def test_a_process_that_dies_leaves_its_last_words(contender, tmp_path):
    with pytest.raises(BackendError, match="The process of sleeper ended with 3: out of patience"):
        Worker(contender, [b"die"], tmp_path / "log")


def test_one_that_cannot_load_says_why(contender, tmp_path):
    from dataclasses import replace

    with pytest.raises(BackendError, match="sleeper failed: ModuleNotFoundError: No module named 'nowhere'"):
        Worker(replace(contender, module="nowhere"), [b"a"], tmp_path / "log")


def test_the_next_turn_waits_for_threads_that_spin_on(contender, tmp_path):
    from dataclasses import replace

    spinning = MODULE + (
        "\nimport threading\n"
        "def spin(until):\n    while time.perf_counter() < until: pass\n"
        "class Spinner(Sleeper):\n"
        "    def answer(self, image):\n"
        "        self.thread = threading.Thread(target=spin, args=(time.perf_counter() + 0.15,))\n"
        "        self.thread.start()\n"
        "        return super().answer(image)\n"
        "    def spins(self, images): return self.thread.is_alive()\n"
        "def load(seconds): return Spinner(seconds)\n"
    )
    (tmp_path / "spinner_of_a_test.py").write_text(spinning)
    with Worker(replace(contender, module="spinner_of_a_test"), [b"a"], tmp_path / "log") as worker:
        spins = []
        for _ in range(5):  # on a busy machine a thread that spins may be kept off the processors, and look idle
            worker.request("burst", 0, 1)
            worker.wait_until_idle()
            spins.append(worker.request("call", "spins"))
    assert not all(spins)
