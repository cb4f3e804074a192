"""The command line of `python -m train`, as a dataclass: light, so that --help needs no torch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from runtime.errors import InputError
from train.data.patient_pattern import compile_pattern
from train.recipes import FOLDS, RECIPES, Recipe
from train.record import absolute
from train.resume import check_same, finished_name, read_options
from train.runs import interrupted_run


@dataclass(frozen=True)
class Options:
    """What a run is told, apart from its recipe."""

    settings: Annotated[Recipe, tyro.conf.arg(name="")]
    """The recipe's own values."""
    data: Path | None = None
    """Folder of class folders, .parquet in the Hugging Face image schema, or .csv of path, label and patient. Without
    it: phantoms made on the spot."""
    groups: Path | None = None
    """CSV file with the columns file and patient (or group), for --data. Without it: ids that the data has, or image
    similarity."""
    patient_pattern: str | None = None
    """Regular expression with a named group (?P<patient>…) that reads ids from the paths of --data."""
    recipe: str = "demo"
    """Named recipe, whose defaults are shown here: resnet50-two-stage, resnet34-gray, or demo (without --data)."""
    weights: str = "none"
    """Where the network starts: none (random), imagenet (torchvision's, fetched if not cached), or a file."""
    out: Path | None = None
    """Run directory to write. Without it: runs/TIME-RECIPE."""
    resume: bool = False
    """Go on with the interrupted run at --out, or with the last one: its options hold. Nothing at --out: begin."""
    checkpoint_minutes: float = 10.0
    """Longest time between checkpoints. One is written after an epoch too, where that takes little of the time."""
    split: Literal["patient", "slice"] = "patient"
    """What is kept whole. 'slice' is the published protocol: the same people are in training and validation."""
    fold: str = "1/5"
    """Which part of how many is for validation."""
    seed: int = 0
    """Seeds the phantoms, the split, the weights, the order and the augmentation."""
    shuffle_labels: int | None = None
    """A control: all people get each other's labels, by this seed. It must be at chance and is not exported."""
    max_unreadable: float = 0.05
    """Share of files that may be unreadable before the run stops."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Arithmetic. auto: bf16 where the device has it, fp16 on other GPUs, fp32 on other CPUs."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: CUDA when there is one."""
    devices: int = 0
    """Processes on this machine, one a device. 0: every visible GPU, or one process on the CPU."""
    trust_network: bool = False
    """Under torchrun on several machines: allow a MASTER_ADDR that stands for every interface. Whoever reaches these
    ports can run code."""
    cache_limit: float = 8.0
    """Gigabytes of decoded slices kept in memory; more go to a file in the temporary folder."""
    compile: bool = False
    """Compile the network with torch.compile: slow to start, faster after."""
    tensorboard: bool = False
    """Write the figures for TensorBoard into the run directory as well."""
    energy: bool = False
    """Estimate energy and CO2 with CodeCarbon, offline, into run.json."""
    country: str = "USA"
    """ISO 3166 alpha-3 code of the country whose electricity --energy reckons with."""
    json: bool = False
    """Print the result as one JSON object."""

    @property
    def fold_of(self) -> tuple[int, int]:
        """(fold from 0, folds). Raises InputError unless `fold` reads like 1/5."""
        first, _, second = self.fold.partition("/")
        if not (first.isdigit() and second.isdigit() and 1 <= int(first) <= int(second) and int(second) >= 2):
            raise InputError(f"--fold is {self.fold!r}, expected i/k with 1 ≤ i ≤ k and k at least 2, such as 1/5.")
        return int(first) - 1, int(second)


_DESCRIPTION = "Train a four-stage Alzheimer classifier on brain-MRI slices. Research use only."


def parse(argv: Sequence[str] | None = None) -> Options:
    """The options on the command line, over the defaults of the recipe they name, or over those of a run to resume.

    Exits with 2 on a usage error. Raises InputError for values that make no sense, CheckpointError when there is
    nothing to resume.
    """
    import argparse
    import sys

    arguments = list(sys.argv[1:] if argv is None else argv)
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, prog="python -m train")
    first.add_argument("--data")
    first.add_argument("--recipe")
    first.add_argument("--weights", default="none")
    first.add_argument("--out", type=Path)
    first.add_argument("--resume", action="store_true")
    known = first.parse_known_args(arguments)[0]
    name = known.recipe or ("resnet50-two-stage" if known.data else "demo")
    if name not in RECIPES:
        first.error(f"no recipe is called {name!r}. Recipes: {', '.join(RECIPES)}.")
    default = Options(settings=RECIPES[name](known.weights != "none"), recipe=name, fold=FOLDS.get(name, "1/5"))
    folder = interrupted_run(known.out) if known.resume and not {"-h", "--help"} & set(arguments) else None
    if folder is not None:
        default = replace(Options(**read_options(folder)), out=finished_name(folder))
    options: Options = tyro.cli(
        Options, args=arguments, prog="python -m train", description=_DESCRIPTION, default=default
    )
    if folder is not None:
        check_same(_rooted(options), default)
    return _checked(_rooted(options))


def _rooted(options: Options) -> Options:
    """The options with paths that mean the same in every folder: a run is evaluated and exported from anywhere."""
    data, groups = (None if path is None else absolute(path) for path in (options.data, options.groups))
    return replace(options, data=data, groups=groups)


def _checked(options: Options) -> Options:
    """The options, when each of their numbers makes sense. Raises InputError for the first that does not."""
    recipe = options.settings
    if options.groups is not None and options.data is None:
        raise InputError("--groups gives the patients of --data, and no --data is given. Those of phantoms are known.")
    if options.patient_pattern is not None:
        if options.data is None or options.groups is not None:
            what = "gives them too: give one of the two" if options.groups is not None else "is missing"
            raise InputError(
                f"--patient-pattern gives the patients of --data; {'--groups' if options.groups else '--data'} {what}."
            )
        compile_pattern(options.patient_pattern)
    rules: list[tuple[str, float, bool, str]] = [
        ("--batch-size", recipe.batch_size, recipe.batch_size >= 2, "2 or more"),
        ("--label-smoothing", recipe.label_smoothing, 0 <= recipe.label_smoothing < 1, "0 or more and below 1"),
        ("--ema", recipe.ema, 0 <= recipe.ema < 1, "0 or more and below 1"),
        ("--momentum", recipe.momentum, 0 <= recipe.momentum < 1, "0 or more and below 1"),
        ("--clip-norm", recipe.clip_norm, recipe.clip_norm >= 0, "0 or more"),
        ("--patience", recipe.patience, recipe.patience >= 0, "0 or more"),
        ("--devices", options.devices, options.devices >= 0, "0 or more"),
        ("--checkpoint-minutes", options.checkpoint_minutes, options.checkpoint_minutes >= 0, "0 or more"),
        ("--shuffle-labels", options.shuffle_labels or 0, (options.shuffle_labels or 0) >= 0, "0 or more"),
        ("--cache-limit", options.cache_limit, options.cache_limit >= 0, "0 or more"),
        ("--max-unreadable", options.max_unreadable, 0 <= options.max_unreadable <= 1, "between 0 and 1"),
    ]
    for stage, values in (("head", recipe.head), ("full", recipe.full)):
        warmup = values.warmup or 0.0
        rules += [
            (f"--{stage}.epochs", values.epochs, values.epochs >= 0, "0 or more"),
            (f"--{stage}.learning-rate", values.learning_rate, values.learning_rate > 0, "more than 0"),
            (f"--{stage}.warmup", warmup, 0 <= warmup < 1, "0 or more and below 1"),
        ]
    if recipe.normalise == "imagenet" and recipe.architecture == "resnet34-gray":
        raise InputError("--normalise imagenet has three channels, resnet34-gray has one. Use training-set.")
    if not re.fullmatch("[A-Z]{3}", options.country):
        raise InputError(f"--country is {options.country!r}, expected an ISO 3166 alpha-3 code, such as DEU.")
    for option, value, holds, expected in rules:
        if not holds:
            raise InputError(f"{option} is {value:g}, expected {expected}.")
    return options
