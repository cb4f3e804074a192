"""What can be known to fail is said before torch is imported and an image decoded, in one line that says what to do."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from stageproof.runtime.errors import CheckpointError, DatasetError, InputError
from stageproof.train.config.command_line import parse
from stageproof.train.config.network_checks import check_network
from stageproof.train.config.preconditions import check_evaluation, check_training
from stageproof.train.networks import NetworkSpec, build
from stageproof.train.runs.initial_weights import check_start

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    """A working directory with a dataset, a run, and a file."""
    (tmp_path / "slices" / "MildDemented").mkdir(parents=True)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model.safetensors").touch()
    (tmp_path / "ids.csv").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--weights", "imagnet"], "is not a file, and not one of none, imagenet. Did you mean imagenet?"),
        (["--weights", "none "], "Did you mean none?"),
        (["--weights", "run"], "is a run directory. Use its file run/model.safetensors"),
        (["--weights", "ids.cvs"], "Did you mean ids.csv?"),
        (
            ["--weights", "imagenet", "--recipe", "resnet34-gray"],
            "--weights imagenet: torchvision has no weights of resnet34-gray. Leave --weights out",
        ),
        (["--data", "slice"], "Did you mean {here}/slices?"),
        (["--data", "slcies/MildDemented"], "There is no slcies in {here}. Did you mean slices?"),
        (["--data", "slices", "--groups", "slices"], "is not a file."),
        (["--data", "slices", "--groups", "id.csv"], "Did you mean {here}/ids.csv?"),
        (["--out", "run"], "run exists already. Give another --out"),
        (["--out", "ids.csv/run"], "ids.csv is not a folder"),
        (["--image-size", "15"], "--image-size is 15, expected 16 to 2048"),
        (["--image-size", "50000"], "--image-size is 50000, expected 16 to 2048"),
    ],
)
def test_what_would_end_training_later_is_said_at_once(here, words, message, said):
    with pytest.raises((CheckpointError, DatasetError, InputError)) as caught:
        check_training(parse(words))
    assert message.format(here=here) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not said


def test_what_can_be_used_passes(here):
    (here / "w.pth").touch()
    words = ["--data", "slices", "--groups", "ids.csv", "--weights", "w.pth", "--out", "a/b/c", "--image-size", "64"]
    check_training(parse(words))
    assert not (here / "a").exists()


@pytest.mark.parametrize(("option", "package"), [("--tensorboard", "tensorboard"), ("--energy", "codecarbon")])
def test_a_package_that_an_option_needs_is_named_with_its_extra(option, package, monkeypatch):
    monkeypatch.setattr("runtime.cli.extras.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=rf"{package} is not installed: pip install 'stageproof\[{option[2:]}\]'"):
        check_training(parse([option]))


def test_room_on_the_disk(monkeypatch, said):
    usage = namedtuple("usage", "free")
    for gigabytes, lines in ((2.0, 0), (0.9, 1)):
        monkeypatch.setattr(shutil, "disk_usage", lambda path, free=gigabytes: usage(free * 1e9))
        check_training(parse(["--out", "new"]))
        assert len(said) == lines
    assert "has 0.90 GB free, and a run of resnet50 needs up to 0.98 GB" in said[0]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0.3e9))
    with pytest.raises(CheckpointError, match=r"has 0\.30 GB free, and a run of resnet50 needs at least 0\.39 GB"):
        check_training(parse(["--out", "new"]))
    assert len(said) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--architecture", "densnet121"], "No network is called 'densnet121'. Did you mean densenet121, "),
        (["--architecture", "inception_v3"], "inception_v3 cannot take images of 32 × 32 pixels: .*--image-size 75 or"),
        (["--architecture", "vit_b_16", "--image-size", "40"], "of 40 × 40 pixels, expected a multiple of 16."),
        (["--architecture", "maxvit_t"], "of 32 × 32 pixels, expected a multiple of 224."),
        (["--architecture", "squeezenet1_1", "--head-type", "two-layer"], "has no two-layer head"),
        (["--architecture", "vit_h_14", "--image-size", "28", "--weights", "imagenet"], "no weights IMAGENET1K_V1 of"),
        (
            ["--architecture", "resnet18", "--channels", "1"],
            "imagenet needs 3 channels, and resnet18 has 1",
        ),
    ],
)
def test_a_network_that_cannot_be_trained_is_said_before_data_is_read(words, message):
    with pytest.raises((CheckpointError, InputError), match=message) as caught:
        check_training(parse(words))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("architecture", "parameters"), [("resnet50", 24_559_172), ("densenet121", 6_957_956)])
def test_the_room_is_that_of_the_network_it_trains(architecture, parameters):
    found = check_network(parse(["--architecture", architecture]).settings)
    width = 512 if architecture == "resnet50" else 1024
    assert found == parameters - 2 * (width + 1)  # two classes instead of four


def test_weights_that_do_not_fit_are_said_before_the_data_is_read(here, monkeypatch):
    import torch

    from stageproof.train.__main__ import main

    torch.save({"features.weight": torch.ones(1)}, here / "other.pth")
    with pytest.raises(CheckpointError, match="does not fit ResNet"):
        check_start("other.pth", NetworkSpec.of("resnet50", 4), None)
    torch.save(build("resnet34-gray", 4).state_dict(), here / "gray.pth")
    check_start("gray.pth", NetworkSpec.of("resnet34-gray", 4), None)
    monkeypatch.setattr("train.run.prepare", pytest.fail)
    assert main(["--weights", "other.pth", "--out", "new"]) == 2
    assert not list(here.glob("*new*"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "no longer at {here}/gone. Give its new path: python -m train.evaluate run --data DIR_OR_PARQUET"),
        ({"data": Path("slcies")}, "slcies does not exist. Did you mean slices?"),
        ({"data": Path("slices"), "groups": Path("id.csv")}, "Did you mean ids.csv?"),
        ({"data": Path("slices"), "out": Path("ids.csv/a")}, "ids.csv is not a folder"),
    ],
)
def test_what_would_end_an_evaluation_later_is_said_at_once(here, options, message):
    record = {"options": {"data": str(here / "gone")}}
    with pytest.raises((CheckpointError, DatasetError, InputError)) as caught:
        check_evaluation(Path("run"), record, **{"data": None, "groups": None, "out": Path("new"), **options})
    assert message.format(here=here) in str(caught.value)


SCRIPT = """
import sys
from benchmarks.__main__ import main as benchmarks
from train.__main__ import main as train
from train.crossvalidate.__main__ import main as crossvalidate
from train.evaluate.__main__ import main as evaluate
assert train(["--weights", "imagnet"]) == 2
assert train(["--data", "nowhere"]) == 2
assert crossvalidate(["--out", "cv", "--data", "nowhere"]) == 2
assert evaluate(["nowhere"]) == 2
assert evaluate([]) == 2
assert benchmarks(["nowhere"]) == 2
assert "torch" not in sys.modules
"""


def test_commands_say_so_without_importing_torch(here):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env={"PYTHONPATH": str(ROOT)}, cwd=here, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stderr.splitlines()) == 6
    assert sorted(path.name for path in here.iterdir()) == ["ids.csv", "run", "slices"]
