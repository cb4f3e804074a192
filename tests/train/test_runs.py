"""Which run a command works on, and that it says so: named, newest, unfinished, moved, written elsewhere."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from pathlib import Path

import pytest

from stageproof.runtime.errors import CheckpointError
from stageproof.runtime.text.hints import command
from stageproof.train.runs.finding import chosen, interrupted_run, newest_run, remember, run_of
from stageproof.train.runs.record import absolute, data_path, read_record, write_record
from stageproof.train.runs.unfinished import partial_folder
from tests.records import logged


def finished(run: Path, created: str, data: Path | str | None = None, digest: str = "0") -> Path:
    run.mkdir(parents=True)
    record = {"created": created, "options": {"data": data and str(data), "seed": 0}, "weights_sha256": digest}
    write_record(record, run)
    return run


def unfinished(run: Path, seconds: float, checkpoint: bool = True) -> Path:
    """What a run leaves that was killed; `seconds` since 1970 is when it wrote last."""
    folder = partial_folder(run)
    folder.mkdir(parents=True)
    for name in ("options.json", "checkpoint.pt")[: 1 + checkpoint]:
        (folder / name).write_text("")
        os.utime(folder / name, (seconds, seconds))
    return run


@pytest.fixture
def runs(tmp_path, monkeypatch) -> Path:
    """runs/ in an empty working directory, holding the finished run a."""
    monkeypatch.chdir(tmp_path)
    finished(tmp_path / "runs" / "a", "2020-01-01T10:00:00Z", "/data/slices")
    return Path("runs")


def said_of(run: Path | None = None) -> tuple[Path, list[str]]:
    with logged() as lines:
        return chosen(run), lines


def test_the_run_is_named_with_when_and_on_what(runs):
    assert said_of() == (runs / "a", ["run runs/a: finished 2020-01-01 10:00 UTC, trained on /data/slices"])
    finished(Path("p"), "2020-01-01T11:00:00Z")
    assert said_of(Path("p"))[1] == ["run p: finished 2020-01-01 11:00 UTC, trained on phantoms"]


def test_evaluating_an_older_run_does_not_make_it_the_newest(runs):
    finished(runs / "b", "2020-01-01T11:00:00Z")
    os.utime(runs / "a" / "run.json")  # as train.evaluate does when it writes the record anew
    os.utime(runs / "b" / "run.json", (0, 0))
    assert newest_run() == runs / "b"


@pytest.mark.parametrize("checkpoint", [True, False])
def test_a_newer_run_that_is_not_finished_is_a_warning_that_names_it(runs, checkpoint):
    unfinished(runs / "my run", 4e9, checkpoint)
    run, lines = said_of()
    assert run == runs / "a"
    assert lines[0].startswith("WARNING: a newer run is unfinished: runs/my run is not finished")
    assert lines[0].endswith("Resume it with: python -m train --resume --out 'runs/my run'") == checkpoint
    assert lines[1].startswith("run runs/a: ")
    assert len(said_of(runs / "a")[1]) == 1  # named by the user


def test_an_older_run_that_is_not_finished_is_no_warning(runs):
    unfinished(runs / "old", 1e9)
    assert len(said_of()[1]) == 1


def test_where_only_an_unfinished_run_is_that_is_what_the_error_says(runs):
    shutil.rmtree(runs / "a")
    unfinished(runs / "b", 4e9)
    with pytest.raises(CheckpointError, match=r"contains no finished run\. runs/b is not finished .* --out runs/b$"):
        newest_run()


def test_a_run_written_elsewhere_is_found_from_where_it_was_started(runs, tmp_path):
    other = finished(tmp_path / "other place" / "b", "2020-01-01T12:00:00Z")
    assert newest_run() == runs / "a"
    remember(Path("other place/b"))
    remember(Path("runs/a"))  # is found without
    assert newest_run() == other
    assert (runs / ".elsewhere").read_text().splitlines() == [str(other)]
    unfinished(other.parent / "c", 4e9)
    remember(other.parent / "c")
    assert f"is unfinished: {other.parent / 'c'} is not finished" in said_of()[1][0]
    assert interrupted_run(None) == partial_folder(other.parent / "c")
    shutil.rmtree(other.parent)
    assert newest_run() == runs / "a"
    remember(tmp_path / "d")
    assert (runs / ".elsewhere").read_text().splitlines() == [str(tmp_path / "d")]


def test_nothing_is_written_where_there_is_no_runs_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    remember(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere", "nowhere does not exist"),
        ("runs", r"runs contains 1 runs, and is not a run itself\. Give one of them, such as runs/a"),
        ("runs/a/run.json", r"run\.json is a file, expected a run directory"),
        ("empty", r"empty contains no run\.json"),
        ("runs/b", r"runs/b is not finished .*python -m train --resume --out runs/b$"),
        ("runs/.b.partial", r"runs/b is not finished .*python -m train --resume --out runs/b$"),
    ],
)
def test_what_is_no_finished_run_is_refused_with_what_it_is(runs, name, message):
    Path("empty").mkdir()
    unfinished(runs / "b", 4e9)
    with pytest.raises(CheckpointError, match=message):
        said_of(Path(name))


def test_the_run_of_a_bundle_is_found_in_runs_beside_the_bundle_and_elsewhere(runs, tmp_path):
    bundle = tmp_path / "place" / "bundle"
    beside = finished(bundle.parent / "r", "2020-01-01T12:00:00Z", digest="beside")
    below = finished(bundle.parent / "runs" / "r", "2020-01-01T12:00:00Z", digest="below")
    other = finished(tmp_path / "other", "2020-01-01T12:00:00Z", digest="other")
    (runs / "damaged").mkdir()
    (runs / "damaged" / "run.json").write_text("{")
    remember(other)
    found = {name: run_of(name, bundle) for name in ("0", "beside", "below", "other")}
    assert found == {"0": runs / "a", "beside": beside, "below": below, "other": other}
    with pytest.raises(CheckpointError, match=r"neither in .*runs nor beside the bundle"):
        run_of("gone", bundle)


def test_recorded_paths_mean_the_same_from_anywhere(tmp_path, monkeypatch):
    (tmp_path / "data set").mkdir()
    (tmp_path / "link").symlink_to("data set")
    monkeypatch.chdir(tmp_path / "data set")
    assert absolute(Path()) == absolute(Path("../data set")) == tmp_path / "data set"
    assert absolute(Path("../link")) == tmp_path / "link"  # the target may lack the suffix that says what it is
    run = finished(tmp_path / "place" / "runs" / "a", "2020-01-01T10:00:00Z", "slices")  # as 0.1 wrote it
    assert data_path(run, read_record(run)) == tmp_path / "data set" / "slices"  # gone, named from the root
    (tmp_path / "place" / "slices").mkdir()
    assert data_path(run, read_record(run)) == tmp_path / "place" / "slices"


def test_hints_are_what_a_shell_takes():
    assert command("train.evaluate", Path("my runs/a$b")) == "python -m train.evaluate 'my runs/a$b'"
    assert shlex.split(command("train", "--out", "it's")) == ["python", "-m", "train", "--out", "it's"]


def test_a_damaged_record_is_named_and_not_passed_over(runs):
    (runs / "b").mkdir()
    (runs / "b" / "run.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"runs/b/run\.json cannot be read"):
        said_of()


def test_options_are_recorded_with_paths_from_the_root(tmp_path, monkeypatch):
    from dataclasses import asdict

    from stageproof.train.config.command_line import parse

    monkeypatch.chdir(tmp_path)
    told = json.loads(json.dumps(asdict(parse(["--data", "a b.parquet", "--groups", "ids.csv"])), default=str))
    assert told["data"] == str(tmp_path / "a b.parquet")
    assert told["groups"] == str(tmp_path / "ids.csv")
