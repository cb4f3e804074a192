"""Typed reading of JSON objects: every missing or ill-typed key is a BundleError that names it and where it stands."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, TypeGuard

from runtime.errors import BundleError


def parse(text: str, where: str) -> dict[str, Any]:
    """The JSON object that `text` spells."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{where} is not JSON ({error}). Copy the bundle again, or export again.") from error
    if not isinstance(data, dict):
        raise BundleError(f"{where} holds {type(data).__name__}, expected an object. Export again.")
    return data


def field(data: Mapping[str, Any], key: str, kind: type, where: str, default: Any = None) -> Any:
    """The value of `key`, which is a `kind`; `default`, unless that is None, where the key is missing."""
    if key not in data:
        if default is not None:
            return default
        raise BundleError(f"{where} lacks {key!r}. Export again.")
    value = data[key]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise BundleError(f"{where}: {key!r} is {type(value).__name__}, expected {kind.__name__}. Export again.")
    return value


def number(data: Mapping[str, Any], key: str, where: str, default: float | None = None) -> float:
    """The finite number at `key`."""
    if key not in data and default is not None:
        return default
    value = data.get(key)
    if key not in data:
        raise BundleError(f"{where} lacks {key!r}. Export again.")
    if not is_number(value):
        got = value if isinstance(value, float) else type(value).__name__
        raise BundleError(f"{where}: {key!r} is {got}, expected a finite number. Export again.")
    return float(value)


def objects(data: Mapping[str, Any], key: str, where: str, default: list[Any] | None = None) -> list[dict[str, Any]]:
    """The list of objects at `key`."""
    entries: list[dict[str, Any]] = field(data, key, list, where, default)
    for entry in entries:
        if not isinstance(entry, dict):
            raise BundleError(f"{where}: {key!r} holds {type(entry).__name__}, expected objects. Export again.")
    return entries


def is_number(value: object) -> TypeGuard[float]:
    """Whether `value` is a finite number that a float holds; true and false are none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond every float
        return False
