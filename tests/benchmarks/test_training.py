"""`python -m benchmarks train` on a small case: everything is really trained, and said as it was taken."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image

from stageproof.benchmarks.__main__ import main
from stageproof.benchmarks.training.suite import FORWARD, HEAD, LOOP, MEMORY, PLAIN
from stageproof.runtime.labels import LABELS

SMALL = ["train", "--image-size", "32", "--batch-size", "4", "--steps", "1", "--rounds", "2"]


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_all_loops_are_measured_and_recorded(tmp_path, capsys):
    assert main([*SMALL, "--out", str(tmp_path / "out.json")]) == 0
    record = json.loads((tmp_path / "out.json").read_text())
    samples = record["milliseconds_per_image"]
    assert set(samples) == {LOOP, PLAIN, MEMORY, HEAD, FORWARD}
    assert all(len(taken) == 2 and min(taken) > 0 for taken in samples.values())
    assert record["circumstances"]["versions"]["torch"]
    lines = capsys.readouterr().out.splitlines()
    assert all(any(line.startswith(name) for line in lines) for name in samples)
    assert max(map(len, lines)) <= 80


def test_too_few_slices_are_said(tmp_path, capsys):
    for label in LABELS:
        (tmp_path / label).mkdir()
        Image.new("L", (32, 32)).save(tmp_path / label / "0.png")
    assert main([*SMALL, "--steps", "2", "--data", str(tmp_path)]) == 2
    assert "Lower --steps" in capsys.readouterr().err


@pytest.mark.parametrize(("option", "value"), [("--rounds", "1"), ("--batch-size", "2"), ("--image-size", "8")])
def test_numbers_that_measure_nothing_are_refused(option, value, capsys):
    assert main([*SMALL, option, value]) == 2
    assert option in capsys.readouterr().err
