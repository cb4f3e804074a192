"""Saves and reads the options of a run, for --resume and from `run.json`. Does not import torch."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from stageproof.runtime.errors import CheckpointError, InputError
from stageproof.runtime.system.regular_files import read_text
from stageproof.train.config.option_values import flat, with_values
from stageproof.train.config.options import Extension, Options
from stageproof.train.recipes import Recipe, Stage
from stageproof.train.runs.record import RECORD, located, read_record
from stageproof.train.runs.unfinished import OPTIONS

STAGES = ("head", "full")
_FREE = {"out", "resume", "json", "config", "show_config", "devices", "device", "trust_network", "checkpoint_minutes"}
_FREE |= {"cache_limit", "compile", "tensorboard", "extends", "extended", "repeat"}
"""Options that may differ when a run is resumed, since they do not affect the trained weights."""


def write_options(options: Options, folder: Path) -> None:
    """Write the options to `options.json` in `folder`, for `read_options`, in one step."""
    new = folder / f"{OPTIONS}.writing"
    new.write_text(json.dumps(asdict(options), default=str, indent=2) + "\n", encoding="utf-8")
    new.replace(folder / OPTIONS)


def read_options(folder: Path) -> dict[str, Any]:
    """The Options fields that the run in `folder` was started with. Raises CheckpointError if they cannot be read."""
    try:
        fields: dict[str, Any] = json.loads(read_text(folder / OPTIONS))
        return _typed(fields, fields["settings"], folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{folder / OPTIONS} cannot be read: {error}. Delete {folder} and start again."
        ) from error


def options_of(record: dict[str, Any], run: Path) -> dict[str, Any]:
    """The Options fields that a finished run was started with. record: the content of its `run.json`."""
    return _typed(record["options"], record["recipe"], run)


def finished_options(run: Path) -> Options:
    """The options of the finished run `run`, and what it was extended by. Raises CheckpointError for a record without
    them."""
    record = read_record(run)
    try:
        found = Options(**options_of(record, run))
        return replace(found, out=run, extends=None, extended=tuple(Extension(**e) for e in record.get("extended", ())))
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{run / RECORD} does not have all options of a run: {error}. Train again.") from error


def _typed(fields: dict[str, Any], settings: dict[str, Any], run: Path) -> dict[str, Any]:
    """JSON fields converted to the types of Options and Recipe; runs of 0.1 may have a relative path to their data."""
    stages = {
        name: Stage(**{**settings[name], "restarts": tuple(settings[name].get("restarts", ()))}) for name in STAGES
    }
    names = ("data", "groups", "out", "config", "extends")
    paths = {name: Path(fields[name]) for name in names if fields.get(name) is not None}
    paths |= {name: located(path, run) for name, path in paths.items() if name in ("data", "groups")}
    extensions = tuple(Extension(**one) for one in fields.get("extended", ()))
    return {**fields, **paths, "extended": extensions, "settings": Recipe(**{**settings, **stages})}


def resumed(options: Options, folder: Path) -> Options:
    """The options of the unfinished run in `folder`, with those of `options` that do not affect the weights."""
    now = flat(options)
    kept = {name: now[name] for name in _FREE - {"extends", "extended"}}
    began: Options = with_values(Options(**read_options(folder)), kept)
    return began


def check_same(options: Options, began: Options, what: str = "--resume", but: Collection[str] = ()) -> None:
    """Raise InputError if `options` would train another model than `began`, the options of the run.

    what: how the error message begins. but: options that may differ.
    """
    now, then = flat(options), flat(began)
    changed = [
        f"{name} is {now[name]}, was {then[name]}"
        for name in now
        if name not in {*_FREE, *but} and now[name] != then[name]
    ]
    if changed:
        raise InputError(
            f"{what}: {'; '.join(changed)}. Leave these options out, or start a new run with another --out."
        )
