"""What can be known to fail before torch is imported and an image decoded: paths, names, packages, room on the disk."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stageproof.runtime.cli.extras import require
from stageproof.runtime.errors import CheckpointError, DatasetError, InputError
from stageproof.runtime.text.hints import command, nearest, nearest_path
from stageproof.train.runs.record import data_path
from stageproof.train.runs.unfinished import RUNS, partial_folder

if TYPE_CHECKING:
    from stageproof.train.config.options import Options

PACKAGES = ("tyro", "rich", "torch", "torchvision", "safetensors", "scipy", "sklearn", "matplotlib")
"""What training imports, of the extra `train`."""
PARAMETERS = {"resnet50": 24_559_172, "resnet34-gray": 21_288_964}
"""Architecture → its parameters, each 4 bytes of a weights file."""
SIZES = (16, 2048)
"""Least and largest --image-size: below, nothing is left of a picture; above, a batch is tens of gigabytes."""
_WEIGHTS = ("none", "imagenet")
_CHECKPOINTS = 3
"""At most so many lie on the disk at once: the last, the one before, and the one that is being written."""


def check_training(options: Options, say: Callable[[str], None]) -> None:
    """Raise InputError, DatasetError, CheckpointError or DependencyError for what would end the run later.

    say: takes a warning where the room on the disk may not do.
    """
    recipe = options.settings
    if not SIZES[0] <= recipe.image_size <= SIZES[1]:
        raise InputError(f"--image-size is {recipe.image_size}, expected {SIZES[0]} to {SIZES[1]}, such as 224.")
    check_data(options.data, options.groups)
    check_weights(options.weights, recipe.architecture)
    if options.tensorboard:
        require("tensorboard", "tensorboard")
    if options.energy:
        require("energy", "codecarbon")
    if options.out is not None:
        _check_out(options.out)
    _check_room(options, say)


def check_data(data: Path | None, groups: Path | None) -> None:
    """Raise DatasetError for data, or a file of groups, that is not there."""
    if data is not None and not data.exists():
        near = nearest_path(data) or " Give a folder of class folders, or a .parquet file."
        raise DatasetError(f"{data} does not exist.{near}")
    if data is not None and not os.access(data, os.R_OK):
        raise DatasetError(f"{data} may not be read by this user.")
    if groups is not None and not groups.is_file():
        raise DatasetError(f"--groups {groups} is not a file.{nearest_path(groups) if not groups.exists() else ''}")


def check_weights(weights: str, architecture: str) -> None:
    """Raise CheckpointError for initial weights that are neither a known name nor a file, or of another network."""
    path = Path(weights)
    if weights == "imagenet" and architecture != "resnet50":
        raise CheckpointError(
            f"--weights imagenet are of resnet50, and {architecture} is to be trained. Leave --weights out, or name a "
            "file of its weights."
        )
    if weights in _WEIGHTS or path.is_file():
        return
    if (path / "model.safetensors").is_file():
        raise CheckpointError(f"--weights {weights} is a run directory. Name its weights: {path / 'model.safetensors'}")
    near = nearest(weights, _WEIGHTS) or nearest_path(path) or " Leave --weights out to start from random weights."
    raise CheckpointError(f"--weights {weights}: {weights} is not a file, nor one of {', '.join(_WEIGHTS)}.{near}")


def check_evaluation(run: Path, record: dict[str, Any], data: Path | None, groups: Path | None, out: Path) -> None:
    """Raise CheckpointError, DatasetError or InputError for what would end an evaluation of `run` later.

    record: its `run.json`. data, groups: as given; without data the run's own is needed. out: the evaluation's folder.
    """
    if record.get("options", {}).get("data") and data is None:
        recorded = data_path(run, record)
        if recorded is not None and not recorded.exists():
            again = command("train.evaluate", run, "--data", "DIR_OR_PARQUET")
            raise DatasetError(f"The run's data is no longer at {recorded}. Say where it is: {again}")
    check_data(data, groups)
    if data is None and not os.access(run, os.W_OK):
        raise CheckpointError(
            f"{run} may not be written to, and the evaluation stores the temperature and the cards there. Make it "
            "writable, or evaluate a copy."
        )
    place = existing(out)
    if not place.is_dir() or not os.access(place, os.W_OK):
        raise InputError(f"{out} cannot be written: {_why(place)}. Give another --out; nothing was written.")


def existing(path: Path) -> Path:
    """The path itself, or the nearest one above it that is there."""
    return next(place for place in (path.absolute(), *path.absolute().parents) if place.exists() or place.is_symlink())


def _why(place: Path) -> str:
    return f"{place} may not be written to" if place.is_dir() else f"{place} is not a folder"


def _check_out(out: Path) -> None:
    if out.exists() or out.is_symlink():
        raise CheckpointError(f"{out} exists already. Give another --out; nothing was written.")
    place = existing(partial_folder(out))
    if not place.is_dir() or not os.access(place, os.W_OK):
        raise CheckpointError(f"{out} cannot be created: {_why(place)}. Give another --out.")


def _check_room(options: Options, say: Callable[[str], None]) -> None:
    """Weights, and checkpoints with what the optimiser keeps of each parameter, must fit the disk."""
    recipe = options.settings
    place = existing(options.out if options.out is not None else RUNS)
    states = {"adamw": 2, "sgd": 1}[recipe.optimizer]
    weights = 4 * PARAMETERS[recipe.architecture]
    checkpoint = weights * (1 + states + bool(recipe.ema))
    free = shutil.disk_usage(place).free
    text = f"{place} has {free / 1e9:.2f} GB free, and a run of {recipe.architecture} takes"
    if free < weights + checkpoint:
        raise CheckpointError(
            f"{text} {(weights + checkpoint) / 1e9:.2f} GB at least: its weights and a checkpoint. Make room, or give "
            "an --out on another disk; nothing was written."
        )
    most = weights + _CHECKPOINTS * checkpoint
    if free < most:
        say(f"WARNING: {text} up to {most / 1e9:.2f} GB while it is trained. Make room.")
