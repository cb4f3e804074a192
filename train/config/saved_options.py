"""What a run was told, kept for --resume and in `run.json`. Light, so that --help needs no torch."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stageproof.runtime.errors import CheckpointError, InputError
from stageproof.runtime.system.regular_files import read_text
from stageproof.train.config.options import Options
from stageproof.train.recipes import Recipe, Stage
from stageproof.train.runs.record import located
from stageproof.train.runs.unfinished import OPTIONS

_FREE = {
    "out",
    "resume",
    "json",
    "devices",
    "device",
    "trust_network",
    "checkpoint_minutes",
    "cache_limit",
    "compile",
    "tensorboard",
}
"""Options that may differ from those the run began with: they do not decide which weights come out."""


def write_options(options: Options, folder: Path) -> None:
    """Keep what a run was told, for `read_options`."""
    (folder / OPTIONS).write_text(json.dumps(asdict(options), default=str, indent=2) + "\n", encoding="utf-8")


def read_options(folder: Path) -> dict[str, Any]:
    """The fields of the Options that the run in `folder` began with. Raises CheckpointError when they are damaged."""
    try:
        fields: dict[str, Any] = json.loads(read_text(folder / OPTIONS))
        return _typed(fields, fields["settings"], folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{folder / OPTIONS} cannot be read: {error}. Delete {folder} and start again."
        ) from error


def options_of(record: dict[str, Any], run: Path) -> dict[str, Any]:
    """The fields of the Options that a finished run was started with, from the content of its `run.json`."""
    return _typed(record["options"], record["recipe"], run)


def _typed(fields: dict[str, Any], settings: dict[str, Any], run: Path) -> dict[str, Any]:
    """What JSON holds of Options and Recipe, as they have it; runs of 0.1 may name their data by a relative path."""
    stages = {name: Stage(**settings[name]) for name in ("head", "full")}
    paths = {name: Path(fields[name]) for name in ("data", "groups", "out") if fields.get(name) is not None}
    paths |= {name: located(path, run) for name, path in paths.items() if name != "out"}
    return {**fields, **paths, "settings": Recipe(**{**settings, **stages})}


def check_same(options: Options, began: Options, what: str = "--resume") -> None:
    """Raise InputError when `options` would train another model than the run `began` to, which is called `what`."""
    now, then = asdict(options), asdict(began)
    pairs = [(name, now[name], then[name]) for name in now if name not in _FREE | {"settings"}]
    pairs += [(name, now["settings"][name], then["settings"][name]) for name in now["settings"]]
    changed = [f"{name} is {value}, was {before}" for name, value, before in pairs if value != before]
    if changed:
        raise InputError(
            f"{what}: {'; '.join(changed)}. Leave out what changed, or start another run with another --out."
        )
