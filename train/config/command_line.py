"""Parses and checks the command line of `python -m train`. Does not import torch, so that --help is fast."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import tyro

from stageproof.runtime.errors import InputError
from stageproof.runtime.text.hints import program
from stageproof.train.config.options import Options
from stageproof.train.config.saved_options import check_same, read_options
from stageproof.train.data.identity.patient_pattern import compile_pattern
from stageproof.train.recipes import FOLDS, RECIPES
from stageproof.train.runs.finding import interrupted_run
from stageproof.train.runs.record import absolute
from stageproof.train.runs.unfinished import finished_name

_DESCRIPTION = "Train a classifier of Alzheimer's stages on brain-MRI slices. Research use only."


def parse(argv: Sequence[str] | None = None) -> Options:
    """The options: those on the command line; for the rest the recipe's defaults, or the options of a run to resume.

    Exits with status 2 on a usage error. Raises InputError for invalid values, CheckpointError when there is no run to
    resume.
    """
    import argparse
    import sys

    arguments = list(sys.argv[1:] if argv is None else argv)
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, prog=program("train"))
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
        Options, args=arguments, prog=program("train"), description=_DESCRIPTION, default=default
    )
    if folder is not None:
        check_same(_rooted(options), default)
    return _checked(_rooted(options))


def _rooted(options: Options) -> Options:
    """The options with absolute paths, since the run may be evaluated and exported from another working directory."""
    data, groups = (None if path is None else absolute(path) for path in (options.data, options.groups))
    return replace(options, data=data, groups=groups)


def _checked(options: Options) -> Options:
    """The options themselves. Raises InputError for the first value that is invalid."""
    recipe = options.settings
    if options.groups is not None and options.data is None:
        raise InputError("--groups gives the patients of --data, and no --data is given. Add --data.")
    if options.patient_pattern is not None:
        if options.data is None or options.groups is not None:
            if options.groups is not None:
                raise InputError("--groups and --patient-pattern both give the patients. Use only one of them.")
            raise InputError("--patient-pattern gives the patients of --data, and no --data is given. Add --data.")
        compile_pattern(options.patient_pattern)
    options.label_set  # raises InputError for invalid classes  # noqa: B018
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
    channels = recipe.network(2).channels
    if recipe.normalise == "imagenet" and channels != 3:
        raise InputError(
            f"--normalise imagenet needs 3 channels, and {recipe.architecture} has {channels} channel. Use "
            "--normalise training-set."
        )
    if not re.fullmatch("[A-Z]{3}", options.country):
        raise InputError(f"--country is {options.country!r}, expected an ISO 3166 alpha-3 code, such as DEU.")
    for option, value, holds, expected in rules:
        if not holds:
            raise InputError(f"{option} is {value:g}, expected {expected}.")
    return options
