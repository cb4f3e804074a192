"""Configuration files: what is shown can be given back, and what is not an option is refused with its line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from stageproof.runtime.errors import InputError
from stageproof.train.__main__ import main
from stageproof.train.config.command_line import parse
from stageproof.train.config.config_file import read_config
from stageproof.train.config.option_values import all_options, flat, with_values
from stageproof.train.config.saved_options import options_of, write_options
from stageproof.train.config.show import as_yaml
from stageproof.train.recipes import RECIPES
from stageproof.train.runs.record import read_record

ROOT = Path(__file__).parents[2]


def written(folder: Path, text: str, name: str = "run.yaml") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def of_file(path: Path, *words: str):
    """The options, without the path of the file."""
    return replace(parse(["--config", str(path), *words]), config=None)


@pytest.mark.parametrize("weights", ["none", "imagenet"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_what_is_shown_can_be_given_back(tmp_path, recipe, weights):
    options = parse(["--recipe", recipe, "--weights", weights])
    again = of_file(written(tmp_path, as_yaml(options)))
    assert again == options
    assert as_yaml(again) == as_yaml(options)


def test_every_option_survives_with_another_value_than_its_default(tmp_path):
    """Also values that YAML 1.1 takes for something else, and paths with any characters."""
    odd = {
        "data": tmp_path / "e\u0301 \U0001f9e0 \udcff: #x",
        "groups": Path("/no"),
        "patient_pattern": "(?P<patient>\\d+)\n",
        "weights": "NO",
        "head_type": "linear",
        "channels": 1,
        "classes": "no, yes",
        "full.restarts": (2, 4),
        "fold": "2/3",
        "country": "NOR",
        "seed": 10**15,
        "out": Path("/1e3"),
        "cache_limit": 1e-7,
    }
    options = parse(["--recipe", "resnet34-gray"])
    changed = {}
    for key, value in flat(options).items():
        kind = all_options()[key]
        if kind.shown and key not in ("recipe", "config", "show_config", "resume"):
            new = odd.get(key, not value if isinstance(value, bool) else None)
            if new is None and isinstance(value, (int, float)):
                new = value + 1
            changed[key] = value if new is None else new
    other = with_values(options, changed)
    path = written(tmp_path, as_yaml(other))
    assert read_config(path).values == {"recipe": "resnet34-gray", **changed}


def test_the_command_line_wins_over_the_file_and_the_file_over_the_recipe(tmp_path):
    path = written(tmp_path, "batch-size: 8\nhead.epochs: 4\nfull:\n  learning_rate: 1e-4\n  epochs: 9\ncountry: NO\n")
    with pytest.raises(InputError, match="--country is 'NO', expected an ISO 3166 alpha-3 code"):
        parse(["--config", str(path)])
    options = parse(["--config", str(path), "--full.epochs", "2", "--country", "NOR", "--recipe", "resnet34-gray"])
    assert options.settings.architecture == "resnet34-gray"
    assert (options.settings.batch_size, options.settings.head.epochs) == (8, 4)
    assert (options.settings.full.epochs, options.settings.full.learning_rate) == (2, 1e-4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: 1\nbatch_sise: 8\n", "run.yaml, line 2: there is no option batch_sise. Did you mean batch_size?"),
        ("full:\n  epoch: 8\n", "line 2: there is no option full.epoch. Did you mean full.epochs?"),
        ("extended: [{stage: full}]\n", "line 1: there is no option extended"),
        ("full:\n  restarts: [2, a]\n", "line 2: full.restarts is a list, expected a whole number"),
        ("full:\n  restarts: 2\n", "line 2: full.restarts is 2, expected a list, such as [2, 4]"),
        ("name: demo\n", "line 1: there is no option name"),
        ("seed: 1\nfull:\n  epochs: 2.0\n", "line 3: full.epochs is 2.0, expected a whole number"),
        ("batch_size: '8'\n", "line 1: batch_size is '8', expected a whole number"),
        ("batch_size: true\n", "batch_size is true, expected a whole number"),
        ("batch_size: 0x10\n", "batch_size is 0x10, expected a whole number"),
        ("ema: .nan\n", "ema is .nan, expected a number"),
        ("ema:\n", "ema is '', expected a number"),
        ("compile: yes\n", "compile is yes, expected true or false"),
        ("keep: best\n", "keep is best, expected one of last, loss, accuracy"),
        ("seed: [1, 2]\n", "seed is a list, expected a whole number"),
        ("full: 3\n", "there is no option full."),
        ("weights: null\n", "weights is null, expected text"),
        ("seed: 1\nseed: 2\n", "line 2: seed is given twice, first in line 1"),
        ("head.epochs: 1\nhead: {epochs: 2}\n", "line 2: head.epochs is given twice, first in line 1"),
        ("resume: true\n", "line 1: resume is given on the command line only"),
        ("? [1]\n: 2\n", "an option's name is a list"),
        ("<<: {seed: 1}\n", "there is no option <<.seed"),
        ("a: &a {b: *a}\n", "there is no option a.b"),
        ("seed: !!python/object/apply:os.system ['touch ran']\n", "seed is a list, expected a whole number"),
        ("weights: !!python/name:os.system x\n", "expected no tag"),
        ("- seed: 1\n", "contains no options. Expected lines such as batch_size: 32"),
        ("# nothing\n", "contains no options"),
        ("seed: 1\n---\nseed: 2\n", "line 2: this is not YAML"),
        ("seed: {\n", "this is not YAML"),
        ("seed: \x00\n", "cannot be read"),
        ("[" * 1500, "cannot be read|contains no options|not YAML"),
        ("channels: 2\n", "line 1: channels is 2, expected one of 1, 3"),
        ("channels: '1'\n", "line 1: channels is '1', expected one of 1, 3"),
        ("head_type: deep\n", "line 1: head_type is deep, expected one of linear, two-layer"),
    ],
)
def test_what_is_not_an_option_is_refused_with_its_line(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path, text)
    with pytest.raises(InputError) as error:
        parse(["--config", str(path)])

    assert re.search("|".join(re.escape(one) for one in message.split("|")), str(error.value)), error.value
    assert "--show-config" in str(error.value) or "line" in str(error.value)
    assert not (tmp_path / "ran").exists()


def test_a_value_out_of_range_is_refused_with_its_line(tmp_path, capsys):
    path = written(tmp_path, "seed: 3\nlabel_smoothing: 2\n")
    assert main(["--config", str(path)]) == 2
    message = f"--label-smoothing is 2 ({path}, line 2), expected 0 or more and below 1.\n"
    assert capsys.readouterr().err == f"InputError: {message}"


def test_a_recipe_in_the_file_and_another_on_the_command_line(tmp_path):
    path = written(tmp_path, as_yaml(parse(["--recipe", "resnet34-gray"])))
    with pytest.raises(InputError, match="names the recipe resnet34-gray, to which the other values"):
        parse(["--config", str(path), "--recipe", "demo"])


def test_an_unknown_recipe_is_refused_with_its_line(tmp_path, capsys):
    with pytest.raises(SystemExit):
        parse(["--config", str(written(tmp_path, "seed: 1\nrecipe: resnet9\n"))])
    assert "run.yaml, line 2: no recipe is called 'resnet9'. Recipes: " in capsys.readouterr().err


@pytest.mark.parametrize(("name", "why"), [("missing.yaml", "does not exist"), ("", r"is a folder. .*run\.json")])
def test_a_file_that_is_not_there(tmp_path, name, why):
    with pytest.raises(InputError, match=why):
        parse(["--config", str(tmp_path / name)])


def test_the_record_of_a_run_is_its_configuration(trained_run, tmp_path):
    record = read_record(trained_run)
    again = of_file(trained_run / "run.json", "--out", str(tmp_path / "new"))
    assert again.settings == options_of(record, trained_run)["settings"]
    changed = {key: value for key, value in flat(again).items() if record["options"].get(key, value) != value}
    assert changed == {"out": tmp_path / "new"}
    write_options(replace(again, resume=True, json=True), tmp_path)
    assert of_file(tmp_path / "options.json", "--out", str(tmp_path / "new")) == again
    wrong = json.loads((trained_run / "run.json").read_text())
    wrong["recipe"]["full"]["epoch"] = 3
    with pytest.raises(InputError, match=r"there is no option full\.epoch\. Did you mean full\.epochs"):
        parse(["--config", str(written(tmp_path, json.dumps(wrong), "run.json"))])


def test_a_record_of_version_0_1_is_a_configuration(tmp_path):
    """It lacks options that were added later, which have their defaults."""
    record = json.loads((ROOT / "tests" / "data" / "run-0.1" / "run.json").read_text())
    record["recipe"]["architecture"] = "resnet50"
    options = of_file(written(tmp_path, json.dumps(record, indent=1), "run.json"))
    assert (options.settings.full.epochs, options.settings.image_size, options.device) == (2, 16, "cpu")
    assert (options.out, options.settings.mixup, options.data_seed) == (None, 0.0, None)


def test_a_file_may_repeat_the_options_of_a_run_to_resume_and_nothing_else(tmp_path):
    folder = tmp_path / ".a.partial"
    folder.mkdir()
    (folder / "checkpoint.pt").touch()
    options = parse(["--recipe", "resnet34-gray", "--batch-size", "8", "--out", str(tmp_path / "a")])
    write_options(options, folder)
    path = written(tmp_path, f"out: {tmp_path / 'a'}\nbatch_size: 8\n")
    assert of_file(path, "--resume").settings == options.settings
    with pytest.raises(InputError, match=r"--resume: batch_size is 4, was 8\. Leave"):
        parse(["--resume", "--config", str(written(tmp_path, f"out: {tmp_path / 'a'}\nbatch_size: 4\n"))])


SHOWN = """
import sys
from stageproof.train.__main__ import main
status = main(sys.argv[1:])
assert not {"torch", "scipy", "matplotlib"} & set(sys.modules)
sys.exit(status)
"""


def test_show_config_prints_yaml_and_trains_nothing(tmp_path):
    words = ["--show-config", "--data", "nowhere", "--seed", "7", "--out", str(tmp_path / "a")]
    done = subprocess.run([sys.executable, "-c", SHOWN, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    shown = yaml.safe_load(done.stdout)
    assert (shown["recipe"], shown["seed"], shown["data"]) == ("resnet50-two-stage", 7, str(ROOT / "nowhere"))
    assert shown["head"]["epochs"] == 1
    assert list(tmp_path.iterdir()) == []
