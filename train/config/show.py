"""`as_yaml`: options as a configuration file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from stageproof.train.config.option_values import all_options, flat
from stageproof.train.config.options import Options

_LEFT_OUT = ("config", "show_config", "resume")
"""Options of one command, not of a run."""


def as_yaml(options: Options) -> str:
    """All options as YAML, which `config_file.read_config` reads."""
    shown = all_options()
    top: dict[str, Any] = {}
    for key, value in flat(options).items():
        if shown[key].shown and key not in _LEFT_OUT:
            group, _, name = key.rpartition(".")
            place = top.setdefault(group, {}) if group else top
            place[name] = str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
    ordered = {"recipe": top.pop("recipe"), **top}
    return str(yaml.safe_dump(ordered, sort_keys=False, allow_unicode=True, width=120))
