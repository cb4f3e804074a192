"""What an evaluation writes: all of it, or nothing where a step fails; a killed one leaves no card of another fit."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import tempfile
from contextlib import nullcontext
from pathlib import Path

import pytest

from stageproof.runtime.errors import InputError
from stageproof.train.evaluate import save as writing
from stageproof.train.evaluate.evaluation import _evaluate, evaluate
from stageproof.train.runs.record import read_record
from stageproof.train.test_set.held_out import held_out


@pytest.fixture(scope="module")
def judged(small_run):
    """Facts and answers of `small_run`, as `evaluate` hands them to `write`, with a temperature of 7."""
    record = read_record(small_run)
    held = held_out(small_run, record, None)
    import numpy as np

    logits = np.random.default_rng(0).normal(size=(len(held.slices), 4)).astype(np.float32)
    facts, written = _evaluate(small_run, record, held, logits, None, 0)
    facts["calibration"]["temperature"] = 7.0
    return record, facts, written


@pytest.fixture(autouse=True)
def quick(monkeypatch) -> None:
    """Without drawing: what is written matters here, not what it shows."""
    monkeypatch.setattr(writing, "pictures", lambda *arguments: {"figures.png": bytes(50_000)})
    monkeypatch.setattr(writing, "page", lambda *arguments: "report")


@pytest.fixture
def run(evaluated, tmp_path) -> Path:
    """An evaluated run to evaluate again."""
    return Path(shutil.copytree(evaluated, tmp_path / "run", copy_function=os.link))


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def stated(run: Path) -> list[str]:
    """The temperature that the model card states, if there is one."""
    card = run / "MODEL_CARD.md"
    return re.findall(r"Logits are divided by ([\d.]+)", card.read_text()) if card.exists() else []


def failing(monkeypatch, count: int, killed: bool) -> None:
    """The renaming after `count` others fails; where `killed` no further one is done."""
    left = [count]

    def counting(real):
        def call(*arguments, **options):
            left[0] -= 1
            if left[0] == -1 or (killed and left[0] < 0):
                raise OSError(28, "No space left on device")
            return real(*arguments, **options)

        return call

    for name in ("rename", "replace", "unlink"):
        monkeypatch.setattr(Path, name, counting(getattr(Path, name)))


STEPS = 9
"""The names of misclassified slices in the new folder; two cards removed, the old evaluation moved and the new one put
there, the record, two cards, the index."""


@pytest.mark.parametrize("count", range(STEPS))
def test_a_step_that_fails_leaves_run_and_evaluation_as_they_were(run, judged, monkeypatch, count):
    record, facts, written = judged
    before = content(run)
    failing(monkeypatch, count, killed=False)
    with pytest.raises(InputError, match=r"cannot be written: .*No space left.* Nothing was changed"):
        writing.write(run / "evaluation", run, record, facts, written, keep=True)
    assert content(run) == before


@pytest.mark.parametrize("count", range(STEPS + 1))
def test_a_process_killed_at_any_step_leaves_no_card_of_another_fit(run, judged, monkeypatch, count):
    record, facts, written = judged
    with monkeypatch.context() as patched:
        failing(patched, count, killed=True)
        left = lambda parent, prefix: nullcontext(Path(tempfile.mkdtemp("", prefix, parent)))  # noqa: E731
        patched.setattr(writing, "work_folder", left)
        if count < STEPS:
            with pytest.raises(InputError):
                writing.write(run / "evaluation", run, record, facts, written, keep=True)
        else:
            writing.write(run / "evaluation", run, record, facts, written, keep=True)
    now = read_record(run)["temperature"]
    assert now == (7.0 if count >= 6 else read_record(run)["temperature"])
    assert all(text == f"{now:.3f}" for text in stated(run))
    if (run / "evaluation").exists():
        told = json.loads((run / "evaluation" / "evaluation.json").read_text())["calibration"]["temperature"]
        assert told in (now, 7.0)
    for stray in run.glob(".evaluation-*"):
        shutil.rmtree(stray)
    writing.write(run / "evaluation", run, record, facts, written, keep=True)  # the same command again
    assert read_record(run)["temperature"] == 7.0
    assert stated(run) == ["7.000"]


def test_a_disk_that_is_full_changes_nothing(run, judged):
    record, facts, written = judged
    before = content(run)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(InputError, match="Nothing was changed"):
            writing.write(run / "evaluation", run, record, facts, written, keep=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert content(run) == before


def test_a_run_that_may_not_be_written_to_is_said_first(run, monkeypatch):
    from stageproof.train.evaluate.__main__ import main

    monkeypatch.setattr("train.config.preconditions.os.access", lambda path, mode: Path(path) != run)
    monkeypatch.setattr("train.evaluate.evaluation.held_out", pytest.fail)
    assert main([str(run)]) == 2


def test_an_api_call_names_the_run_it_chose(run, monkeypatch, tmp_path, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    run.rename(tmp_path / "runs" / "a")
    monkeypatch.setattr("train.evaluate.evaluation.held_out", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        evaluate(None)
    assert said[0].startswith("run runs/a: finished ")
