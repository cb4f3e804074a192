"""Options as a flat table, key → value, with the keys of the command line (``batch_size``, ``head.epochs``)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import tyro

from stageproof.train.config.options import Options

SETTINGS = "settings"
"""The field of Options that holds the recipe's values, which have no prefix on the command line."""


@dataclass(frozen=True)
class Option:
    """One option: its type, and whether it is on the command line."""

    kind: Any
    """int, float, bool, str, Path, a Literal of them, `X | None`, or `tuple[int, ...]`."""
    shown: bool
    """False for values that the recipe determines, such as its name."""


@cache
def all_options() -> dict[str, Option]:
    """Key → option, in the order of the dataclasses."""
    return dict(_options(Options, ""))


def _options(kind: type, prefix: str) -> Iterator[tuple[str, Option]]:
    for name, hint in get_type_hints(kind, include_extras=True).items():
        shown = get_origin(hint) is not Annotated or tyro.conf.Suppress not in hint.__metadata__
        inner = get_args(hint)[0] if get_origin(hint) is Annotated else hint
        if is_dataclass(inner) and isinstance(inner, type):
            yield from _options(inner, prefix if name == SETTINGS else f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", Option(inner, shown)


def flat(options: Any, prefix: str = "") -> dict[str, Any]:
    """Key → value of Options, Recipe or Stage."""
    found: dict[str, Any] = {}
    for field in fields(options):
        value = getattr(options, field.name)
        if is_dataclass(value):
            found |= flat(value, prefix if field.name == SETTINGS else f"{prefix}{field.name}.")
        else:
            found[f"{prefix}{field.name}"] = value
    return found


def with_values(options: Any, values: Mapping[str, Any], prefix: str = "") -> Any:
    """A copy of Options, Recipe or Stage with these values, by key."""
    changed: dict[str, Any] = {}
    for field in fields(options):
        value, key = getattr(options, field.name), f"{prefix}{field.name}"
        if is_dataclass(value):
            changed[field.name] = with_values(value, values, prefix if field.name == SETTINGS else f"{key}.")
        elif key in values:
            changed[field.name] = values[key]
    return replace(options, **changed)
