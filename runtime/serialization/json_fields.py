"""Strict, typed reading of JSON objects: whatever is missing, unknown or ill-typed is a BundleError that names it."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from typing import Any, TypeGuard

from stageproof.runtime.errors import BundleError

DEEPEST = 32
"""Levels of objects and lists within each other; ours have at most seven."""


def parse(text: str, where: str) -> dict[str, Any]:
    """The JSON object that `text` spells (RFC 8259): no key twice in one object, no NaN, no infinite number.

    Raises BundleError, naming `where`, for anything else. Python's own parser keeps the last of two equal keys, while
    another program may keep the first.
    """
    try:
        data = json.loads(text, object_pairs_hook=_distinct, parse_constant=_no_constant, parse_float=_finite)
    except _NotStrictError as error:
        raise BundleError(f"{where} {error}. Copy the bundle again, or export again.") from error
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{where} is not JSON ({error}). Copy the bundle again, or export again.") from error
    if not isinstance(data, dict):
        raise BundleError(f"{where} holds {type(data).__name__}, expected an object. Export again.")
    return data


def exactly(data: Mapping[str, Any], where: str, required: Collection[str], optional: Collection[str] = ()) -> None:
    """Raise BundleError, naming `where` and the keys, unless `data` has all of `required` and nothing but `optional`
    beside them."""
    if unknown := sorted(set(data) - {*required, *optional}):
        raise BundleError(
            f"{where} has keys that its schema does not have: {', '.join(map(repr, unknown))}. It was changed, or a "
            "newer stageproof wrote it: export again, or upgrade."
        )
    for key in required:
        if key not in data:
            raise BundleError(f"{where} lacks {key!r}. Copy the bundle again, or export again.")


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


def text(data: Mapping[str, Any], key: str, where: str, default: str | None = None) -> str:
    """The text at `key`, which may be shown on a terminal: without control characters and line breaks."""
    value: str = field(data, key, str, where, default)
    if not value.isprintable():
        raise BundleError(f"{where}: {key!r} is {value!r}, expected text without control characters. Export again.")
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


def assert_plain(value: Any, where: str) -> None:
    """Raise BundleError, naming `where`, for text in `value`, at any depth, that a terminal or a page would not show as
    it stands (control characters, line breaks, marks that turn the direction of writing), for an integer beyond 64 bits
    and for more than `DEEPEST` levels."""
    waiting = [(value, 0)]
    while waiting:
        one, depth = waiting.pop()
        if depth > DEEPEST:
            raise BundleError(f"{where} is nested more than {DEEPEST} levels deep. Export again.")
        if isinstance(one, str) and not one.isprintable():
            shown = repr(one[:80])
            raise BundleError(f"{where} holds {shown}, expected text without control characters. Export again.")
        if isinstance(one, int) and not -(2**63) <= one < 2**64:
            raise BundleError(
                f"{where} holds an integer of {one.bit_length()} bits, expected at most 64. Export again."
            )
        if isinstance(one, dict):
            waiting += [(key, depth + 1) for key in one]
            waiting += [(inside, depth + 1) for inside in one.values()]
        elif isinstance(one, list):
            waiting += [(inside, depth + 1) for inside in one]


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


class _NotStrictError(Exception):
    """JSON that Python reads and this project does not. No ValueError, which `json` would pass on as bad syntax."""


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _NotStrictError(f"has the key {key[:80]!r} twice in one object")
            seen.add(key)
    return data


def _no_constant(name: str) -> float:
    raise _NotStrictError(f"holds {name}, which is not JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise _NotStrictError(f"holds the number {digits[:20]}, which no float64 holds")
    return value
