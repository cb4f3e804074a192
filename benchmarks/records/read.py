"""Reads and validates records of `python -m benchmarks`, for reports and comparisons."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_args

from stageproof.benchmarks.records.schema import SCHEMA, Kind, Row, Scenario
from stageproof.runtime.errors import InputError
from stageproof.runtime.text.hints import command, program

_AGAIN = f"Measure again: {command('benchmarks', '--out', 'FILE')}."
_REQUIRED = ("name", "kind", "scenario", "backend", "precision", "batch", "threads", "samples_ms")


@dataclass(frozen=True)
class Record:
    """One run of the benchmarks."""

    name: str
    """Name of its file."""
    facts: Mapping[str, Any]
    """All keys of `benchmarks.records.schema` except the rows; keys with objects are never None."""
    rows: tuple[Row, ...]

    @property
    def machine(self) -> Mapping[str, Any]:
        """The `circumstances` of the record."""
        found: Mapping[str, Any] = self.facts["circumstances"]
        return found


def read_record(path: Path) -> Record:
    """The record in a file. Raises InputError for a file that is not a record, is truncated, or has another schema."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}. {_AGAIN}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON, or is truncated: {error}. {_AGAIN}") from error
    return parsed(content, str(path))


def parsed(content: Any, name: str) -> Record:
    """The record with this content. Raises InputError, with `name`, for invalid content."""
    if not isinstance(content, dict) or "schema" not in content:
        raise InputError(f"{name} is not a record of {program('benchmarks')}: it has no schema. {_AGAIN}")
    if content["schema"] != SCHEMA:
        raise InputError(f"{name} has schema {content['schema']!r}, this code reads {SCHEMA}. {_AGAIN}")
    facts = {key: value for key, value in content.items() if key != "rows"}
    for key in ("circumstances", "bundle", "floors", "work"):
        facts[key] = facts.get(key) or {}
        if not isinstance(facts[key], dict):
            raise InputError(f"{name}: {key} is {_kind(facts[key])}, expected an object. {_AGAIN}")
    unread = [key for key, valid in _FACTS.items() if facts.get(key) is not None and not valid(facts[key])]
    if unread:
        raise InputError(f"{name}: {', '.join(unread)} cannot be read. {_AGAIN}")
    entries = content.get("rows")
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{name} has no rows: nothing was measured. {_AGAIN}")
    return Record(name, facts, tuple(_row(entry, f"{name}, row {at}") for at, entry in enumerate(entries)))


def _row(entry: Any, where: str) -> Row:
    if not isinstance(entry, dict):
        raise InputError(f"{where} is {_kind(entry)}, expected an object. {_AGAIN}")
    missing = [key for key in _REQUIRED if entry.get(key) is None]
    if missing:
        raise InputError(f"{where} has no {', '.join(missing)}. {_AGAIN}")
    for key, known in (("kind", get_args(Kind)), ("scenario", get_args(Scenario))):
        if entry[key] not in known:
            raise InputError(f"{where}: {key} is {entry[key]!r}, expected {', '.join(known)}. {_AGAIN}")
    samples = entry["samples_ms"]
    if not isinstance(samples, list) or not samples or not all(_is_time(one) for one in samples):
        raise InputError(f"{where}: samples_ms is not a list of milliseconds above 0. {_AGAIN}")
    wrong = [key for key, valid in _OPTIONAL.items() if entry.get(key) is not None and not valid(entry[key])]
    if wrong or not all(isinstance(entry[key], kind) for key, kind in _TYPES.items()):
        named = wrong or [key for key, kind in _TYPES.items() if not isinstance(entry[key], kind)]
        raise InputError(f"{where}: {', '.join(named)} cannot be read. {_AGAIN}")
    counts = entry.get("processes")
    if counts is not None and sum(counts) != len(samples):
        raise InputError(f"{where}: processes sum to {sum(counts)}, but samples_ms has {len(samples)}. {_AGAIN}")
    return Row(**{field.name: entry.get(field.name) for field in fields(Row)})  # type: ignore[arg-type]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_time(value: Any) -> bool:
    return _is_number(value) and bool(value > 0)


def _has_numbers(*keys: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(_is_number(value.get(key)) for key in keys)


def _is_stages(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(of, list) and all(map(_is_number, of)) for of in value.values())


def _is_counts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(one) is int and one > 0 for one in value)


def _is_floors(value: Any) -> bool:
    rates = [one.get("gb_s" if name == "memory" else "gflop_s") for name, one in value.items() if isinstance(one, dict)]
    return len(rates) == len(value) and all(map(_is_time, rates))


def _is_scaling(value: Any) -> bool:
    required = {"images": ("images", "seconds", "rss_bytes"), "workers": ("workers", "seconds", "images_per_s")}
    return isinstance(value, dict) and all(
        isinstance(one, dict) and all(_is_time(one.get(key)) for key in keys)
        for name, keys in required.items()
        for one in value.get(name) or ()
    )


_FACTS: Mapping[str, Callable[[Any], bool]] = {
    "floors": _is_floors,
    "scaling": _is_scaling,
    "work": lambda value: _is_time(value.get("gflop_per_image", 1)),
    "images": lambda value: isinstance(value, dict),
    "notes": lambda value: isinstance(value, list),
}
_TYPES: Mapping[str, type] = {"name": str, "backend": str, "precision": str, "batch": int, "threads": int}
_OPTIONAL: Mapping[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("images_per_s", "file_bytes"), _is_time),
    **dict.fromkeys(("peak_rss_bytes", "load_s", "first_answer_s", "floor_ms", "floor_share"), _is_number),
    "settings": lambda value: isinstance(value, str),
    "stages_ms": _is_stages,
    "processes": _is_counts,
    "flips": _has_numbers("count", "images"),
    "server": _has_numbers("offered_per_s", "latency_bound_ms", "lost", "seconds"),
}


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
