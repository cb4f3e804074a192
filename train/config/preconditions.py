"""Checks made before torch is imported and before any image is decoded: paths, names, packages, free disk space."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stageproof.runtime.cli.extras import require
from stageproof.runtime.errors import CheckpointError, DatasetError, InputError
from stageproof.runtime.text.hints import command, nearest, nearest_path
from stageproof.train.runs.record import data_path
from stageproof.train.runs.unfinished import RUNS, partial_folder

if TYPE_CHECKING:
    from stageproof.train.config.options import Options

logger = logging.getLogger(__name__)

PACKAGES = ("tyro", "rich", "torch", "torchvision", "safetensors", "scipy", "sklearn", "matplotlib", "jinja2", "yaml")
"""Packages of the extra `train` that training imports."""
SIZES = (16, 2048)
"""Minimum and maximum --image-size: smaller slices show nothing, a batch of larger ones takes tens of gigabytes."""
_WEIGHTS = ("none", "imagenet")
_CHECKPOINTS = 3
"""Maximum number of checkpoints on the disk at one time: the last, the one before it and the one being written."""


def check_training(options: Options) -> None:
    """Raise InputError, DatasetError, CheckpointError or DependencyError for an option that would make the run fail.

    Warns if the free disk space may not be enough.
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
    from stageproof.train.config.network_checks import check_network  # imports torch, so it comes last

    _check_room(options, check_network(recipe, options.weights))


def check_data(data: Path | None, groups: Path | None) -> None:
    """Raise DatasetError if `data` does not exist or cannot be read, or if `groups` is not a file."""
    if data is not None and not data.exists():
        near = nearest_path(data) or " Give a folder of class folders, a .parquet file or a .csv file."
        raise DatasetError(f"{data} does not exist.{near}")
    if data is not None and not os.access(data, os.R_OK):
        raise DatasetError(f"This user has no permission to read {data}.")
    if groups is not None and not groups.is_file():
        raise DatasetError(f"--groups {groups} is not a file.{nearest_path(groups) if not groups.exists() else ''}")


def check_weights(weights: str, architecture: str) -> None:
    """Raise CheckpointError if `weights` is neither a known name nor a file, or is for another architecture."""
    path = Path(weights)
    if weights == "imagenet" and architecture == "resnet34-gray":
        raise CheckpointError(
            f"--weights imagenet: torchvision has no weights of {architecture}. Leave --weights out, or give a file "
            f"with weights of {architecture}."
        )
    if weights in _WEIGHTS or path.is_file():
        return
    if (path / "model.safetensors").is_file():
        raise CheckpointError(f"--weights {weights} is a run directory. Use its file {path / 'model.safetensors'}")
    near = nearest(weights, _WEIGHTS) or nearest_path(path) or " Leave --weights out to start from random weights."
    raise CheckpointError(f"--weights {weights}: {weights} is not a file, and not one of {', '.join(_WEIGHTS)}.{near}")


def check_evaluation(run: Path, record: dict[str, Any], data: Path | None, groups: Path | None, out: Path) -> None:
    """Raise CheckpointError, DatasetError or InputError for what would make an evaluation of `run` fail.

    record: content of its `run.json`. data, groups: as given by the user; if `data` is None, the data of the run must
    exist. out: folder of the evaluation.
    """
    if record.get("options", {}).get("data") and data is None:
        recorded = data_path(run, record)
        if recorded is not None and not recorded.exists():
            again = command("train.evaluate", run, "--data", "DIR_OR_PARQUET")
            raise DatasetError(f"The data of the run is no longer at {recorded}. Give its new path: {again}")
    check_data(data, groups)
    if data is None and not os.access(run, os.W_OK):
        raise CheckpointError(
            f"{run} is not writable, and the evaluation stores the temperature and the cards there. Make it writable, "
            "or evaluate a copy."
        )
    place = existing(out)
    if not place.is_dir() or not os.access(place, os.W_OK):
        raise InputError(f"{out} cannot be written: {_why(place)}. Give another --out; nothing was written.")


def existing(path: Path) -> Path:
    """The path itself if it exists, else its nearest parent that exists."""
    return next(place for place in (path.absolute(), *path.absolute().parents) if place.exists() or place.is_symlink())


def _why(place: Path) -> str:
    return f"{place} is not writable" if place.is_dir() else f"{place} is not a folder"


def _check_out(out: Path) -> None:
    if out.exists() or out.is_symlink():
        raise CheckpointError(f"{out} exists already. Give another --out; nothing was written.")
    place = existing(partial_folder(out))
    if not place.is_dir() or not os.access(place, os.W_OK):
        raise CheckpointError(f"{out} cannot be created: {_why(place)}. Give another --out.")


def _check_room(options: Options, parameters: int) -> None:
    """Raise CheckpointError if the weights and one checkpoint (with optimizer state) do not fit on the disk.

    parameters: of the network, each of 4 bytes.
    """
    recipe = options.settings
    place = existing(options.out if options.out is not None else RUNS)
    states = {"adamw": 2, "sgd": 1}[recipe.optimizer]
    weights = 4 * parameters
    checkpoint = weights * (1 + states + bool(recipe.ema))
    free = shutil.disk_usage(place).free
    text = f"{place} has {free / 1e9:.2f} GB free, and a run of {recipe.architecture} needs"
    if free < weights + checkpoint:
        raise CheckpointError(
            f"{text} at least {(weights + checkpoint) / 1e9:.2f} GB for its weights and a checkpoint. Free disk space, "
            "or give an --out on another disk. Nothing was written."
        )
    most = weights + _CHECKPOINTS * checkpoint
    if free < most:
        logger.warning(f"{text} up to {most / 1e9:.2f} GB during training. Free disk space.")
