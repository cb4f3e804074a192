"""Strict, typed access to JSON objects: missing, unknown or mistyped keys raise a BundleError that names them."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from typing import Any, TypeGuard

from stageproof.runtime.errors import BundleError

DEEPEST = 32
"""Limit on nesting levels; the exported files have at most seven."""


def parse(text: str, where: str) -> dict[str, Any]:
    """The JSON object in `text` (RFC 8259), without duplicate keys, NaN or infinite numbers.

    Raises BundleError, naming `where`, for anything else. Duplicate keys are rejected because Python's parser keeps the
    last one, while another program may keep the first.
    """
    try:
        data = json.loads(text, object_pairs_hook=_distinct, parse_constant=_no_constant, parse_float=_finite)
    except _NotStrictError as error:
        raise BundleError(f"{where} {error}. Copy the bundle again, or export again.") from error
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{where} is not JSON ({error}). Copy the bundle again, or export again.") from error
    if not isinstance(data, dict):
        raise BundleError(f"{where} is a JSON {type(data).__name__}, expected an object. Export again.")
    return data


def exactly(data: Mapping[str, Any], where: str, required: Collection[str], optional: Collection[str] = ()) -> None:
    """Raise BundleError, naming `where` and the keys, unless `data` has all `required` keys and no other ones than
    `optional`."""
    if unknown := sorted(set(data) - {*required, *optional}):
        raise BundleError(
            f"{where} has keys that its schema does not have: {', '.join(map(repr, unknown))}. It was changed, or a "
            "newer stageproof wrote it: export again, or upgrade."
        )
    for key in required:
        if key not in data:
            raise BundleError(f"{where} lacks {key!r}. Copy the bundle again, or export again.")


def field(data: Mapping[str, Any], key: str, kind: type, where: str, default: Any = None) -> Any:
    """The value of `key`, an instance of `kind`. If the key is missing: `default`, or BundleError if that is None."""
    if key not in data:
        if default is not None:
            return default
        raise BundleError(f"{where} lacks {key!r}. Export again.")
    value = data[key]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise BundleError(f"{where}: {key!r} is {type(value).__name__}, expected {kind.__name__}. Export again.")
    return value


def text(data: Mapping[str, Any], key: str, where: str, default: str | None = None) -> str:
    """The text at `key`. Raises BundleError if it contains control characters or line breaks."""
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
    """Raise BundleError, naming `where`, for unprintable text in `value` at any depth (control characters, line breaks,
    bidirectional marks), for integers beyond 64 bits, and for more than `DEEPEST` levels."""
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
    """Whether `value` is a finite number within the range of a float, and not a boolean."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond the range of a float
        return False


class _NotStrictError(Exception):
    """JSON that Python accepts and this project rejects. Not a ValueError, to be told apart from syntax errors."""


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
    raise _NotStrictError(f"has {name}, which is not valid JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise _NotStrictError(f"has the number {digits[:20]}, beyond the range of float64")
    return value
