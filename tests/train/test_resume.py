"""A run that was killed, stopped, or could not write goes on to the weights that an undisturbed run ends with."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch

from stageproof.runtime.bundle.manifest import sha256_file
from stageproof.runtime.errors import CheckpointError, InputError, TrainingError
from stageproof.train.__main__ import main
from stageproof.train.config.command_line import parse
from stageproof.train.config.saved_options import read_options
from stageproof.train.runs.checkpoints import CheckpointWriter, read_checkpoint
from stageproof.train.runs.unfinished import partial_folder

REPOSITORY = Path(__file__).parents[2]
RECIPES = {
    "resnet50-two-stage": ["--head.epochs", "1", "--full.epochs", "2", "--batch-size", "8", "--ema", "0.9"],
    "resnet34-gray with mixup": ["--full.epochs", "2", "--batch-size", "8", "--mixup", "0.4", "--fold", "1/5"],
    "resnet34-gray": ["--full.epochs", "2", "--batch-size", "8", "--full.augment", "--fold", "1/5"],
}


def arguments(recipe: str, data: Path, out: Path) -> list[str]:
    common = [
        "--data",
        str(data),
        "--recipe",
        recipe.split()[0],
        "--image-size",
        "32",
        "--precision",
        "fp32",
        "--device",
        "cpu",
    ]
    return [*common, *RECIPES[recipe], "--checkpoint-minutes", "0", "--out", str(out)]


def start(words: list[str], *extra: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "train", *words, *extra],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_until_within_an_epoch(process: subprocess.Popen[str], out: Path) -> None:
    """Return when a checkpoint of the last stage stands at a step that is neither its epoch's first nor its last."""
    path = partial_folder(out) / "checkpoint.pt"
    while True:  # the test's own time-out ends it
        assert process.poll() is None, process.communicate()
        if path.exists():
            try:
                content = torch.load(path, weights_only=True)
            except FileNotFoundError:  # between its two names
                continue
            if content["stage"] == 1 and content["state"]["step"] >= 2:
                return
        time.sleep(0.02)


def figures(run: Path) -> list[dict]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("seconds", "images_per_second")} for line in lines]


@pytest.fixture(scope="module")
def undisturbed(few_slices, tmp_path_factory) -> Callable[[str], Path]:
    """Function: a recipe → its run, never interrupted."""

    @cache
    def run(recipe: str) -> Path:
        out = tmp_path_factory.mktemp("undisturbed") / recipe
        assert main(arguments(recipe, few_slices, out)) == 0
        return out

    return run


@pytest.fixture(scope="module")
def interrupted(few_slices, tmp_path_factory) -> Path:
    """What a run that was killed left; copy it."""
    out = tmp_path_factory.mktemp("interrupted") / "a"
    process = start(arguments("resnet34-gray", few_slices, out))
    wait_until_within_an_epoch(process, out)
    process.kill()
    process.communicate()
    return out


@pytest.fixture
def killed(interrupted, tmp_path) -> Path:
    """A run of its own to resume."""
    shutil.copytree(partial_folder(interrupted), partial_folder(tmp_path / "a"))
    return tmp_path / "a"


def assert_ends_as(out: Path, whole: Path, capsys: pytest.CaptureFixture) -> None:
    """Go on with the interrupted run at `out`: it must end as `whole`, which was not interrupted."""
    assert not out.exists()
    assert main(["--resume", "--out", str(out)]) == 0
    assert "resumed" in capsys.readouterr().err
    assert sha256_file(out / "model.safetensors") == sha256_file(whole / "model.safetensors")
    assert figures(out) == figures(whole)
    assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in whole.iterdir())
    assert [path.name for path in out.parent.iterdir()] == ["a"]


def test_killed_within_an_epoch_it_ends_with_the_same_weights_bit_for_bit(undisturbed, killed, capsys):
    """The run that was killed had a process of its own; this one goes on with it."""
    assert_ends_as(killed, undisturbed("resnet34-gray"), capsys)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "how"),
    [
        ("resnet50-two-stage", signal.SIGKILL),
        ("resnet34-gray with mixup", signal.SIGKILL),
        ("resnet34-gray", signal.SIGTERM),
        ("resnet50-two-stage", signal.SIGTERM),
        ("resnet34-gray", signal.SIGINT),
    ],
)
def test_disturbed_in_other_ways_it_does_so_too(undisturbed, few_slices, tmp_path, capsys, recipe, how):
    out = tmp_path / "runs" / "a"
    process = start(arguments(recipe, few_slices, out))
    wait_until_within_an_epoch(process, out)
    process.send_signal(how)
    printed, errors = process.communicate()
    if how == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 0
        assert (
            errors.splitlines()[-1]
            == f"Stopped after writing a checkpoint. Resume with: python -m train --resume --out {out}"
        )
        assert printed == ""
    assert_ends_as(out, undisturbed(recipe), capsys)


def test_a_run_directory_of_the_gray_recipe_carries_its_own_normalisation(undisturbed, few_slices):
    record = json.loads((undisturbed("resnet34-gray") / "run.json").read_text())
    assert record["input"]["channels"] == 1
    from stageproof.runtime.preprocess import InputSpec
    from stageproof.train.data.dataset import prepare

    spec = InputSpec(32, 32, 1, (0.0,), (1.0,))
    data = prepare(few_slices, spec, max_unreadable=0.05, split="patient", fold=0, folds=5, seed=0)
    pixels = data.slices.pixels[data.split.training] / 255
    assert record["input"]["mean"] == pytest.approx([pixels.mean()])
    assert record["input"]["std"] == pytest.approx([pixels.std()])
    assert [line["stage"] for line in figures(undisturbed("resnet34-gray"))] == ["full", "full"]


def test_an_interrupted_run_is_not_overwritten(killed, few_slices, capsys):
    assert main(arguments("resnet34-gray", few_slices, killed)) == 2
    error = capsys.readouterr().err
    assert "contains an interrupted run. Nothing was written." in error
    assert error.endswith(f"or resume it: python -m train --resume --out {killed}\n")
    assert (partial_folder(killed) / "checkpoint.pt").exists()


def test_a_resumed_run_that_is_interrupted_at_once_says_that_its_checkpoint_is_kept(killed, monkeypatch, capsys):
    def interrupted(options):
        raise KeyboardInterrupt

    monkeypatch.setattr("train.launch.launch", interrupted)
    assert main(["--resume", "--out", str(killed)]) == 1
    assert capsys.readouterr().err.endswith(f"kept. Resume with: python -m train --resume --out {killed}\n")
    assert main(["--out", f"{killed}-new"]) == 1
    assert capsys.readouterr().err.endswith("nothing was written.\n")


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_still_there(killed, capsys):
    folder = partial_folder(killed)
    newest = folder / "checkpoint.pt"
    newest.write_bytes(newest.read_bytes()[:50_000])
    assert main(["--resume", "--out", str(killed)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"CheckpointError: {newest} is damaged: ")
    assert error.endswith("Delete it; --resume then continues from checkpoint.previous.pt.\n")
    assert error.count("\n") == 1
    newest.unlink()
    assert read_checkpoint(folder)["stage"] == 1


def test_data_that_changed_is_noticed(killed, few_slices, tmp_path, capsys):
    changed = tmp_path / "data"
    shutil.copytree(few_slices, changed)
    shutil.copy(changed / "MildDemented" / "0.png", changed / "MildDemented" / "1.png")
    options = json.loads((partial_folder(killed) / "options.json").read_text())
    (partial_folder(killed) / "options.json").write_text(json.dumps({**options, "data": str(changed)}))
    assert main(["--resume", "--out", str(killed)]) == 2
    assert "has changed since the run began: its digest is " in capsys.readouterr().err


def test_patients_that_changed_are_noticed(killed, capsys):
    """The same slices, but other patient ids: trained slices would become validation slices."""
    split = partial_folder(killed) / "split.csv"
    text = split.read_text(encoding="utf-8")
    assert ",training" in text
    split.write_text(text.replace(",training", ",validation", 1), encoding="utf-8")
    assert main(["--resume", "--out", str(killed)]) == 2
    assert "has changed since the run began: 1 of " in capsys.readouterr().err
    split.write_text(text, encoding="utf-8")


def test_another_recipe_is_not_mixed_in(killed):
    with pytest.raises(InputError, match=r"--resume: batch_size is 4, was 8\. Leave these options out"):
        parse(["--resume", "--out", str(killed), "--batch-size", "4"])
    options = parse(["--resume", "--out", str(killed), "--checkpoint-minutes", "3"])
    assert options.settings.name == "resnet34-gray"
    assert options.settings.batch_size == 8
    assert options.checkpoint_minutes == 3
    assert options.out == killed


def test_the_run_interrupted_last_is_found_by_itself(killed, monkeypatch):
    monkeypatch.chdir(killed.parent)
    (killed.parent / "runs").mkdir()
    with pytest.raises(CheckpointError, match=r"runs/ contains no interrupted run with a checkpoint"):
        parse(["--resume"])
    partial_folder(killed).rename(killed.parent / "runs" / ".b.partial")
    assert parse(["--resume"]).out == Path("runs/b")


def test_nothing_to_resume_at_out_begins_and_a_finished_run_is_left(tmp_path, trained_run):
    assert parse(["--resume", "--out", str(tmp_path / "new"), "--batch-size", "8"]).settings.batch_size == 8
    with pytest.raises(CheckpointError, match="is finished: there is nothing to resume"):
        parse(["--resume", "--out", str(trained_run)])


def test_damaged_options_are_named(killed):
    (partial_folder(killed) / "options.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"options\.json cannot be read"):
        read_options(partial_folder(killed))


FULL_DISK = """
import resource, sys
from train.__main__ import main
# No file may grow beyond this from the second checkpoint on: as on a disk that has filled up.
from train.runs import checkpoints as state
write, count = state.CheckpointWriter.write, []

def fills(self, content):
    count.append(1)
    if len(count) == 3:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))
    write(self, content)

state.CheckpointWriter.write = fills
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_disk_that_fills_up_stops_the_run_and_keeps_the_last_checkpoint(few_slices, undisturbed, tmp_path):
    out = tmp_path / "runs" / "a"
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, *arguments("resnet34-gray", few_slices, out)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=300,
    )
    folder = partial_folder(out)
    assert done.returncode == 1
    error = done.stderr.splitlines()[-1]
    assert error.startswith(f"TrainingError: A checkpoint cannot be written to {folder}: ")
    assert f"Last checkpoint: {folder / 'checkpoint.pt'}. Free disk space" in error
    assert not (folder / "checkpoint.pt.writing").exists()
    assert read_checkpoint(folder)["state"]["step"] == 2
    again = start(["--resume", "--out", str(out)])
    _, errors = again.communicate()
    assert again.returncode == 0, errors
    name = "model.safetensors"
    assert sha256_file(out / name) == sha256_file(undisturbed("resnet34-gray") / name)


def test_a_checkpoint_that_cannot_be_written_leaves_the_ones_before(tmp_path):
    writer = CheckpointWriter(tmp_path, minutes=0)
    for step in (1, 2):
        writer.write({"step": step})
    (tmp_path / "checkpoint.pt.writing").mkdir()  # in the way, as a folder that may not be written to is
    with pytest.raises(TrainingError, match=r"cannot be written to .* Last checkpoint: .*checkpoint\.pt"):
        writer.write({"step": 3})
    assert read_checkpoint(tmp_path)["step"] == 2
    assert torch.load(tmp_path / "checkpoint.previous.pt", weights_only=True)["step"] == 1


def test_after_an_epoch_a_checkpoint_is_worth_a_twentieth_of_the_time(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("train.runs.checkpoints.time.monotonic", lambda: now[0])
    monkeypatch.setattr("train.runs.checkpoints.os.fsync", lambda _: now.__setitem__(0, now[0] + 2))
    writer = CheckpointWriter(tmp_path, minutes=10)
    assert writer.worthwhile()
    writer.write({"step": 1})  # takes two seconds
    assert now == [102.0]
    now[0] += 39
    assert not writer.worthwhile()
    now[0] += 1
    assert writer.worthwhile()
    assert not writer.due()
    now[0] += 560
    assert writer.due()


def test_a_checkpoint_of_another_schema(tmp_path):
    torch.save({"schema": 99}, tmp_path / "checkpoint.pt")
    with pytest.raises(CheckpointError, match="has schema 99, this version reads 1"):
        read_checkpoint(tmp_path)
