"""More epochs for a run that is resumed: what stays the same, what does not, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from stageproof.runtime.bundle.manifest import sha256_file
from stageproof.runtime.errors import CheckpointError, InputError
from stageproof.train.__main__ import main
from stageproof.train.config.command_line import parse
from stageproof.train.config.extension import extended
from stageproof.train.config.options import Extension
from stageproof.train.config.saved_options import read_options, write_options
from stageproof.train.engine.loop import _rate
from stageproof.train.engine.progress import ProgressBar
from stageproof.train.engine.signals import StopRequest
from stageproof.train.recipes import Stage
from stageproof.train.runs.record import read_record
from stageproof.train.runs.unfinished import partial_folder
from tests.train.copied_runs import contents, copied, rewritten
from tests.train.small_networks import SMALLEST

COMMON = ["--recipe", "resnet34-gray", *SMALLEST, "--image-size", "32", "--precision", "fp32", "--device", "cpu"]
COMMON += ["--fold", "1/5"]


def words(data: Path, out: Path, *more: str) -> list[str]:
    return ["--data", str(data), *COMMON, "--batch-size", "8", *more, "--out", str(out)]


def interrupt(monkeypatch, arguments: list[str], after: int) -> None:
    """Train, and request a stop after the figures of `after` steps, as SIGTERM would.

    The signal itself would end a pytest worker that runs tests outside of its main thread; tests/train/test_resume.py
    sends it to a process of its own."""
    step, enter, count, asked = ProgressBar.step, StopRequest.__enter__, [], []

    def stopping(self, figures):
        step(self, figures)
        count.append(1)
        if len(count) == after:
            asked[-1].requested = True

    def remembered(self):
        asked.append(self)
        return enter(self)

    with monkeypatch.context() as patch:
        patch.setattr(ProgressBar, "step", stopping)
        patch.setattr(StopRequest, "__enter__", remembered)
        assert main(arguments) == 0


def rates(stage: Stage, steps: int = 3) -> list[float]:
    return [_rate(stage, epoch, step, steps) for epoch in range(1, stage.epochs + 1) for step in range(steps)]


@pytest.mark.parametrize("schedule", ["cosine", "one-cycle", "constant"])
@pytest.mark.parametrize("warmup", [None, 0.5])
def test_a_schedule_that_is_extended_ends_as_it_began_and_goes_on_as_a_cycle(schedule, warmup):
    began = parse([f"--full.schedule={schedule}", f"--full.warmup={warmup}", "--full.epochs=6"])
    options = replace(began, settings=replace(began.settings, full=replace(began.settings.full, epochs=10)))
    longer = extended(options, began, at=1, begun=True, optimizer="kept")
    stage, before = longer.settings.full, began.settings.full
    assert rates(stage)[: 6 * 3] == rates(before)
    if schedule == "constant" and warmup is None:
        assert stage.restarts == ()
        assert rates(stage) == rates(replace(before, epochs=10))
        assert longer.extended == (Extension("full", 6, 10, "unchanged", "kept"),)
    else:
        assert stage.restarts == (6,)
        assert rates(stage)[6 * 3 :] == rates(replace(before, epochs=4))
        assert rates(stage) != rates(replace(before, epochs=10))
        assert longer.extended == (Extension("full", 6, 10, "restarted", "kept"),)
        again = replace(longer, settings=replace(longer.settings, full=replace(stage, epochs=12)))
        again = extended(again, longer, at=1, begun=True, optimizer="kept")
        assert again.settings.full.restarts == (6, 10)
        assert rates(again.settings.full)[: 10 * 3] == rates(stage)
        assert len(again.extended) == 2


def test_a_stage_that_has_not_begun_is_that_of_a_run_with_as_many_epochs():
    began = parse(["--full.epochs", "6", "--head.epochs", "2"])
    options = replace(began, settings=replace(began.settings, full=replace(began.settings.full, epochs=10)))
    for at, begun in ((0, True), (1, False)):
        longer = extended(options, began, at=at, begun=begun, optimizer="kept")
        assert longer.settings == options.settings
        assert longer.extended == (Extension("full", 6, 10, "unchanged", "not begun"),)
    other = replace(began, settings=replace(began.settings, head=replace(began.settings.head, epochs=3)))
    with pytest.raises(CheckpointError, match=r"--head\.epochs is 3, was 2, but the run has completed the stage head"):
        extended(other, began, at=1, begun=False, optimizer="kept")


@pytest.mark.parametrize("stage", ["head", pytest.param("full", marks=pytest.mark.slow)])
def test_an_interrupted_run_with_more_epochs_is_bit_for_bit_that_of_a_run_with_as_many(
    few_slices, tmp_path, monkeypatch, capsys, stage
):
    out, none = tmp_path / "runs" / "a", ["--head.epochs", "0", "--full.epochs", "0"]
    interrupt(monkeypatch, words(few_slices, out, *none, f"--{stage}.epochs", "1"), after=1)
    assert main(["--resume", "--out", str(out), f"--{stage}.epochs", "2"]) == 0
    said = capsys.readouterr().err
    assert f"{stage}: extended from 1 to 2 epochs. The learning rates are those of a run with as many epochs" in said
    assert main(words(few_slices, tmp_path / "b", *none, f"--{stage}.epochs", "2")) == 0
    assert sha256_file(out / "model.safetensors") == sha256_file(tmp_path / "b" / "model.safetensors")
    record = read_record(out)
    assert record["recipe"] == read_record(tmp_path / "b")["recipe"]
    assert record["extended"] == [
        {"stage": stage, "before": 1, "epochs": 2, "schedule": "unchanged", "optimizer": "kept"}
    ]


def test_an_extension_survives_another_interruption(few_slices, tmp_path, monkeypatch, capsys):
    """Also one before the first checkpoint after it; and the schedule goes on as it was extended."""
    out = tmp_path / "a"
    more = ["--head.epochs", "2", "--full.epochs", "0", "--head.schedule", "cosine"]
    interrupt(monkeypatch, words(few_slices, out, *more), after=5)
    interrupt(monkeypatch, ["--resume", "--out", str(out), "--head.epochs", "3"], after=1)
    assert "epochs 3 to 3 are a new cycle (a warm restart), unlike in a run of 3 epochs" in capsys.readouterr().err
    options = read_options(partial_folder(out))
    assert (options["settings"].head.restarts, len(options["extended"])) == ((2,), 1)
    with pytest.raises(InputError, match=r"--head\.epochs is 2, was 3\. Epochs can only be raised"):
        parse(["--resume", "--out", str(out), "--head.epochs", "2"])
    assert main(["--resume", "--out", str(out)]) == 0
    record, lines = read_record(out), (out / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 3
    assert record["recipe"]["head"]["restarts"] == [2]
    assert [one["schedule"] for one in record["extended"]] == ["restarted"]
    last = [json.loads(line)["learning_rate"] for line in lines]
    assert last[2] == pytest.approx(_rate(options["settings"].head, 3, 3, 4))
    # What was extended can be given back, as a run with the same learning rates.
    again = parse(["--config", str(out / "run.json"), "--out", str(tmp_path / "b")])
    assert again.settings == options["settings"]
    assert again.extended == ()


@pytest.fixture(scope="module")
def head_only(few_slices, tmp_path_factory) -> Path:
    """A finished run of one epoch of the head."""
    out = tmp_path_factory.mktemp("finished") / "a"
    more = ["--head.epochs", "1", "--full.epochs", "0", "--keep", "loss", "--patience", "1"]
    assert main(words(few_slices, out, *more, "--groups", str(few_slices / "groups.csv"))) == 0
    return out


def test_a_finished_run_is_continued_in_a_new_directory_and_stays_as_it_was(head_only, tmp_path, capsys):
    run = copied(head_only, tmp_path)
    before = contents(run)
    assert main(["--resume", "--out", str(run), "--head.epochs", "3"]) == 0
    said, new = capsys.readouterr(), tmp_path / "run-head-3"
    assert f"run                 {new}\n" in said.out
    assert "The optimizer starts anew from the weights of the run, which has no optimizer state." in said.err
    assert contents(run) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "run-head-3"]
    record = read_record(new)
    assert record["options"]["extends"] == str(run)
    assert [(one["before"], one["epochs"], one["optimizer"]) for one in record["extended"]] == [(1, 3, "new")]
    old, lines = ((path / "metrics.jsonl").read_text().splitlines() for path in (run, new))
    assert lines[0] == old[0]
    assert 2 <= len(lines) <= 3
    with pytest.raises(CheckpointError, match="run-head-3 exists already"):
        parse(["--resume", "--out", str(run), "--head.epochs", "3"])


def test_what_cannot_be_extended_is_refused(head_only, tmp_path, capsys):
    run = copied(head_only, tmp_path)
    with pytest.raises(CheckpointError, match=r"is finished: there is nothing to resume\. Give it more epochs"):
        parse(["--resume", "--out", str(run)])
    with pytest.raises(InputError, match=r"--head\.epochs is 0, was 1\. Epochs can only be raised"):
        parse(["--resume", "--out", str(run), "--head.epochs", "0"])
    with pytest.raises(InputError, match=r"--resume: batch_size is 4, was 8\. Leave"):
        parse(["--resume", "--out", str(run), "--head.epochs", "5", "--batch-size", "4"])
    rewritten(run, lambda record: record["recipe"]["head"].update(epochs=4))
    assert main(["--resume", "--out", str(run), "--head.epochs", "6"]) == 2
    assert "stopped early, after epoch 1 of 4: more epochs would not be trained" in capsys.readouterr().err
    rewritten(run, lambda record: record.update(weights_sha256="0"))
    assert main(["--resume", "--out", str(run), "--head.epochs", "6"]) == 2
    assert "model.safetensors was changed after training" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_options_are_replaced_in_one_step(tmp_path, monkeypatch):
    write_options(parse([]), tmp_path)
    before = (tmp_path / "options.json").read_text()

    def fails(self, target):
        raise OSError("killed")

    monkeypatch.setattr(Path, "replace", fails)
    with pytest.raises(OSError, match="killed"):
        write_options(parse(["--seed", "3"]), tmp_path)
    assert (tmp_path / "options.json").read_text() == before


@pytest.mark.parametrize("restarts", [["0"], ["6"], ["3", "2"], ["2", "2"], ["-1"]])
def test_restarts_of_no_sense(restarts):
    with pytest.raises(InputError, match=r"--full\.restarts is .*, expected increasing epochs between 1 and 5"):
        parse(["--full.restarts", *restarts])
