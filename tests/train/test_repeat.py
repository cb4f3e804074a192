"""`--repeat N`: runs that differ in the seed alone, continued where they stopped, and what is said about them."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from stageproof.runtime.bundle.manifest import sha256_file
from stageproof.runtime.errors import CheckpointError, InputError
from stageproof.train.__main__ import main
from stageproof.train.config.command_line import parse
from stageproof.train.metrics.between_runs import over_runs
from stageproof.train.recipes import same_recipe
from stageproof.train.repeat.sequence import planned, repeat
from stageproof.train.repeat.summary import lines, summary
from stageproof.train.runs.record import read_record
from stageproof.train.runs.unfinished import has_checkpoint, partial_folder
from tests.pages import read_page
from tests.train.test_extension import interrupt, words

HEAD = ["--head.epochs", "2", "--full.epochs", "0"]


def arguments(data: Path, out: Path, *more: str) -> list[str]:
    return words(data, out, *HEAD, "--groups", str(data / "groups.csv"), *more)


@pytest.fixture(scope="module")
def repeated(few_slices, tmp_path_factory) -> Path:
    """Two runs, of which the second was interrupted and continued. Do not change it."""
    out = tmp_path_factory.mktemp("repeated") / "a"
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, arguments(few_slices, out, "--repeat", "2", "--seed", "3"), after=8 + 2)
    assert (out / "seed-3" / "run.json").exists()
    assert has_checkpoint(partial_folder(out / "seed-4"))
    assert main(arguments(few_slices, out, "--repeat", "2", "--seed", "3", "--resume")) == 0
    return out


def sides(run: Path) -> dict[str, str]:
    with (run / "split.csv").open(newline="") as file:
        return {row["name"]: row["side"] for row in csv.DictReader(file)}


def test_the_runs_differ_in_the_seed_alone(repeated, few_slices, tmp_path):
    one, two = (repeated / f"seed-{seed}" for seed in (3, 4))
    assert sides(one) == sides(two)
    assert read_record(one)["weights_sha256"] != read_record(two)["weights_sha256"]
    alone = tmp_path / "alone"
    assert main(arguments(few_slices, alone, "--seed", "4", "--data-seed", "3")) == 0
    assert sha256_file(alone / "model.safetensors") == sha256_file(two / "model.safetensors")
    assert [read_record(run)["split"]["seed"] for run in (one, two, alone)] == [3, 3, 3]


def test_the_summary_is_that_of_the_records(repeated):
    facts = json.loads((repeated / "repeat.json").read_text(), parse_constant=pytest.fail)
    records = [read_record(repeated / f"seed-{seed}") for seed in (3, 4)]
    assert facts["seeds"] == [3, 4]
    values = [record["metrics"]["patient_accuracy"] for record in records]
    assert [run["patient_accuracy"] for run in facts["runs"]] == values
    assert facts["metrics"]["patient_accuracy"] == over_runs(values)
    said = "\n".join(lines(facts))
    assert max(map(len, said.splitlines())) <= 80
    assert "It does not include the variance over patients" in " ".join(said.split())
    page = (repeated / "repeat.html").read_text()
    assert "the variance over patients and over splits" in page
    assert read_page(page).links == ["seed-3/index.html", "seed-4/index.html"]
    assert sorted(path.name for path in repeated.iterdir()) == ["repeat.html", "repeat.json", "seed-3", "seed-4"]


def test_repeated_once_more_nothing_is_trained(repeated, few_slices, monkeypatch, capsys):
    monkeypatch.setattr("train.launch.launch", pytest.fail)
    words = arguments(few_slices, repeated, "--seed", "3", "--resume", "--json")
    assert main([*words, "--repeat", "2"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((repeated / "repeat.json").read_text())


def test_what_is_there_is_not_overwritten_nor_mixed(repeated, few_slices, tmp_path):
    def plan(*more: str):
        return planned(parse(arguments(few_slices, repeated, "--seed", "3", *more)))

    with pytest.raises(CheckpointError, match=r"exists already\. Give another --out, or continue there"):
        plan("--repeat", "2")
    with pytest.raises(InputError, match=r"seed-3: label_smoothing is 0\.1, was 0\.0"):
        plan("--repeat", "2", "--resume", "--label-smoothing", "0.1")
    with pytest.raises(InputError, match=r"seed-3: head\.epochs is 4, was 2"):
        plan("--repeat", "2", "--resume", "--head.epochs", "4")
    assert [options is None for _, options in plan("--repeat", "3", "--resume")] == [True, True, False]
    with pytest.raises(InputError, match="--repeat needs --out"):
        planned(parse(["--repeat", "2"]))
    with pytest.raises(InputError, match="--repeat is 0, expected 1 or more"):
        parse(["--repeat", "0"])
    with pytest.raises(CheckpointError, match="is a run, and --repeat needs a folder"):
        planned(parse(["--repeat", "2", "--resume", "--out", str(repeated / "seed-3")]))


def test_seeds_outside_are_named(repeated, few_slices, said):
    planned(parse(arguments(few_slices, repeated, "--seed", "4", "--data-seed", "3", "--repeat", "2", "--resume")))
    assert said == [f"WARNING: seed-3 in {repeated} have seeds outside of this --repeat and are not summarised."]


@pytest.mark.parametrize(
    ("file", "old", "new"), [("run.json", '"digest": "', '"digest": "0'), ("split.csv", ",training", ",validation")]
)
def test_data_that_changes_between_runs_stops_before_the_next(repeated, tmp_path, file, old, new):
    launched = []

    def launch(run: Path) -> None:
        shutil.copytree(repeated / "seed-3", run)
        if launched:
            text = (run / file).read_text(encoding="utf-8")
            (run / file).write_text(text.replace(old, new, 1), encoding="utf-8")
        launched.append(run.name)

    runs = [(tmp_path / f"seed-{seed}", tmp_path / f"seed-{seed}") for seed in (3, 4, 5)]
    with pytest.raises(CheckpointError, match=r"other data, another split|has changed since the run began"):
        repeat(runs, tmp_path, launch, True)
    assert launched == ["seed-3", "seed-4"]


def test_runs_of_other_data_are_not_summarised_together(repeated):
    runs = [repeated / f"seed-{seed}" for seed in (3, 4)]
    records = [read_record(run) for run in runs]
    records[1]["data"]["digest"] = "another"
    with pytest.raises(CheckpointError, match="seed-4 has other data, another split or another recipe"):
        summary(runs, records)


def test_the_interval_is_students_and_none_where_there_is_none():
    values = [0.5, 0.6, 0.55, 0.7]
    found = over_runs(values)
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert (found["low"], found["high"]) == pytest.approx((low, high))
    assert over_runs([0.0, 1.0])["low"] == 0.0
    assert over_runs([0.0, 1.0])["high"] == 1.0
    assert over_runs([0.5, 0.5])["why"] == "no interval: the same in all runs"
    assert over_runs([0.5])["why"] == "no interval: one run"
    assert over_runs([None, None]) == {**over_runs([None]), "runs": 0}
    assert over_runs([0.5, None])["why"] == "not estimable in 1 runs"
    assert over_runs([0.5, None])["mean"] is None


def test_the_interval_holds_the_mean_of_many_runs_in_95_of_100():
    rng, held = np.random.default_rng(0), []
    for _ in range(1500):
        found = over_runs(list(0.6 + 0.03 * rng.normal(size=5)))
        held.append(found["low"] <= 0.6 <= found["high"])
    assert np.mean(held) == pytest.approx(0.95, abs=0.02)


def test_a_recipe_that_an_earlier_version_recorded_is_the_same():
    recipe = read_back(parse([]).settings)
    old = {name: value for name, value in recipe.items() if name != "mixup"}
    old["full"] = {name: value for name, value in old["full"].items() if name != "restarts"}
    assert same_recipe(old, recipe)
    assert not same_recipe({**old, "mixup": 0.2}, recipe)
    assert not same_recipe(None, recipe)


def read_back(settings) -> dict:
    from dataclasses import asdict

    return json.loads(json.dumps(asdict(settings)))
