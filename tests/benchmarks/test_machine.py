"""What is said of the machine is measured, and its ceilings are what the libraries here really reach."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from stageproof.benchmarks.machine import ceilings as module
from stageproof.benchmarks.machine import circumstances as machine
from stageproof.benchmarks.machine.ceilings import floors, gflop_per_image
from stageproof.benchmarks.machine.memory import current_rss, peak_rss
from stageproof.runtime.networks.spec import NetworkSpec


def test_circumstances_say_where_figures_come_from(monkeypatch):
    monkeypatch.setattr(machine, "used_by_others", lambda: 0.02)
    monkeypatch.setattr(machine, "noise", lambda: 0.03)
    found = machine.circumstances()
    assert found["cpu"]
    assert found["cpus"] >= 1
    assert found["versions"]["numpy"]
    assert found["memory_bytes"] > 1e8
    assert found["busy"] is False


@pytest.mark.parametrize(("others", "spread"), [(0.3, 0.0), (0.0, 0.3), (None, 0.3)])
def test_a_machine_that_others_use_or_that_runs_unevenly_is_called_busy(monkeypatch, others, spread):
    monkeypatch.setattr(machine, "used_by_others", lambda: others)
    monkeypatch.setattr(machine, "noise", lambda: spread)
    assert machine.circumstances()["busy"] is True


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="only Linux tells what others use")
def test_what_others_use_is_seen():
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        shares = [machine.used_by_others(0.3) for _ in range(3)]
    finally:
        other.kill()
        other.wait()
    assert max(shares) > 0.5 / (machine.os.cpu_count() or 1)


def test_noise_is_a_share():
    assert 0 <= machine.noise(12) < 20


def test_the_commit_is_that_of_the_checkout():
    found = machine.commit()
    assert found is None or re.fullmatch(r"[0-9a-f]{12}\+?", found)


def test_memory_is_that_of_this_process():
    before, held = peak_rss(), current_rss()
    block = bytearray(b"x") * (before - held + 60_000_000)  # more than this process has ever held
    assert peak_rss() >= before + 30_000_000
    assert current_rss() > max(len(block), held)


def test_the_work_of_an_image_is_that_of_the_papers():
    # He et al. 2015, table 1: 3.8 and 3.6 billion multiply-adds without some of the 1 × 1 convolutions and the head.
    assert gflop_per_image(NetworkSpec.of("resnet50", 4), (3, 224, 224)) == pytest.approx(8.2, abs=0.1)
    assert gflop_per_image(NetworkSpec.of("resnet34-gray", 4), (1, 224, 224)) == pytest.approx(7.2, abs=0.2)


@pytest.fixture
def one_torch_thread():
    import torch

    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_floors_are_measured_and_say_how(monkeypatch, one_torch_thread, said):
    monkeypatch.setattr(module, "SIZES", (128,))
    monkeypatch.setattr(module, "_SECONDS", 0.01)
    monkeypatch.setattr(module, "_COPIED", 4 * 1024 * 1024)
    found = floors(1, "cpu")
    assert set(found) == {"fp32", "bf16", "int8", "memory"}
    assert all(found[name]["gflop_s"] > 0.1 and "128 × 128" in found[name]["how"] for name in ("fp32", "bf16", "int8"))
    assert found["memory"]["gb_s"] > 0.1
    assert any("int8 by openvino" in line for line in said), "OpenVINO did not compute the chain in 8 bits"


def test_a_float_chain_is_no_int8_figure():
    import openvino

    for quantised in (True, False):
        compiled = openvino.Core().compile_model(module._chain(openvino, 64, quantised=quantised), "CPU")
        assert module._runs_in_int8(compiled) is quantised
