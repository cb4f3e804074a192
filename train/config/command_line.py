"""Parses and checks the command line of `python -m train`. Does not import torch, so that --help is fast."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import tyro

from stageproof.runtime.errors import InputError
from stageproof.runtime.text.hints import program
from stageproof.train.config.config_file import ConfigFile, read_config
from stageproof.train.config.extension import EPOCHS, place, raised
from stageproof.train.config.option_values import with_values
from stageproof.train.config.options import Options
from stageproof.train.config.saved_options import check_same, finished_options, read_options, resumed
from stageproof.train.data.identity.patient_pattern import compile_pattern
from stageproof.train.recipes import FOLDS, RECIPES, Stage
from stageproof.train.runs.finding import interrupted_run
from stageproof.train.runs.record import RECORD, absolute
from stageproof.train.runs.unfinished import finished_name, has_checkpoint, partial_folder

_DESCRIPTION = "Train a classifier of Alzheimer's stages on brain-MRI slices. Research use only."


def parse(argv: Sequence[str] | None = None, *, extend: bool = True) -> Options:
    """The options: those on the command line, then those of --config, then those of the run to resume or of the recipe.

    extend: whether --resume may raise the epochs of a run, also of a finished one.

    Exits with status 2 on a usage error. Raises InputError for invalid values, CheckpointError when there is no run to
    resume.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, prog=program("train"))
    for name in ("--data", "--recipe", "--weights"):
        first.add_argument(name)
    first.add_argument("--config", type=Path)
    first.add_argument("--out", type=Path)
    first.add_argument("--repeat", type=int)
    first.add_argument("--resume", action="store_true")
    known = first.parse_known_args(arguments)[0]
    file = read_config(known.config) if known.config else ConfigFile(Path(), {}, {})
    default = _default(known, file, first)
    out: Path | None = known.out or file.values.get("out")
    began = finished = None
    single = (known.repeat or file.values.get("repeat", 1)) == 1
    if known.resume and single and not {"-h", "--help"} & set(arguments):
        finished = out if out is not None and extend and (out / RECORD).is_file() else None
        folder = None if finished else interrupted_run(out)
        if finished:
            began = finished_options(finished)
        elif folder is not None:
            began = replace(Options(**read_options(folder)), out=finished_name(folder))
    options: Options = tyro.cli(
        Options,
        args=arguments,
        prog=program("train"),
        description=_DESCRIPTION,
        default=with_values(began or default, file.values),
    )
    options = _rooted(options)
    if began is not None:
        check_same(options, began, but=EPOCHS if extend else ())
        raised(options, began)
    _checked(options, file)
    if began is not None and finished is not None:
        new = place(finished, options, began)
        options = replace(options, extends=absolute(finished), out=new)
        return resumed(options, partial_folder(new)) if has_checkpoint(partial_folder(new)) else options
    return options


def _default(known: argparse.Namespace, file: ConfigFile, first: argparse.ArgumentParser) -> Options:
    """The defaults of the recipe that the command line or the file names."""
    given = file.values
    name = known.recipe or given.get("recipe") or ("resnet50-two-stage" if known.data or given.get("data") else "demo")
    if name not in RECIPES:
        where = "" if known.recipe else f"{file.where('recipe')}: "
        first.error(f"{where}no recipe is called {name!r}. Recipes: {', '.join(RECIPES)}.")
    if name != given.get("recipe", name):
        raise InputError(
            f"--recipe {name}: {file.where('recipe')}, names the recipe {given['recipe']}, to which the other values "
            "of the file belong. Leave --recipe out, or remove recipe from the file."
        )
    pretrained = (known.weights or given.get("weights", "none")) != "none"
    return Options(settings=RECIPES[name](pretrained), recipe=name, fold=FOLDS.get(name, "1/5"))


def _restarts(stage: Stage) -> tuple[float, bool, str]:
    """The first restart that is wrong (0: none), whether none is, and what was expected."""
    bounds = (0, *stage.restarts, max(stage.epochs, 1))
    wrong = [
        one
        for before, one, after in zip(bounds[:-2], stage.restarts, bounds[2:], strict=True)
        if not before < one < after
    ]
    return (wrong or [0])[0], not wrong, f"increasing epochs between 1 and {stage.epochs - 1}"


def _rooted(options: Options) -> Options:
    """The options with absolute paths, since the run may be evaluated and exported from another working directory."""
    data, groups = (None if path is None else absolute(path) for path in (options.data, options.groups))
    return replace(options, data=data, groups=groups)


def _checked(options: Options, file: ConfigFile) -> None:
    """Raise InputError for the first value that is invalid. file: where it may be from."""
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
        ("--mixup", recipe.mixup, 0 <= recipe.mixup <= 100, "between 0 and 100, such as 0.2; 0 is off"),
        ("--ema", recipe.ema, 0 <= recipe.ema < 1, "0 or more and below 1"),
        ("--momentum", recipe.momentum, 0 <= recipe.momentum < 1, "0 or more and below 1"),
        ("--clip-norm", recipe.clip_norm, recipe.clip_norm >= 0, "0 or more"),
        ("--patience", recipe.patience, recipe.patience >= 0, "0 or more"),
        ("--repeat", options.repeat, options.repeat >= 1, "1 or more"),
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
            (f"--{stage}.restarts", *_restarts(values)),
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
            key = option.removeprefix("--").replace("-", "_")
            where = f" ({file.where(key)})" if file.values.get(key) == value else ""
            raise InputError(f"{option} is {value:g}{where}, expected {expected}.")
