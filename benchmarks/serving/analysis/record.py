"""The record of one run of `python -m benchmarks serving`: every latency, with hardware, load and settings.

A JSON object, schema `serving-1`. Times are wall-clock.

    schema          "serving-1"
    commit          Git commit of the code, with a final `+` if files were modified; None outside a checkout
    started         ISO 8601, UTC
    circumstances   as in `benchmarks.records.schema`
    bundle          `ModelInfo.to_dict()` of the bundle
    precision       of the ONNX file that every server runs
    images          {count, source} of the images that are sent
    threads         processors for every server
    rounds          number of rounds
    ceiling         [Cell] of the load generator with a server that does nothing
    predictor       {latencies_ms, stream_ms, batch}: the Predictor in this run, without a server: one image at a time,
                    and milliseconds per image of each stream
    servers         [{name, title, settings, versions, start_s}]
    cells           [Cell]
    notes           [str]: servers that were left out or failed, with the reason
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from stageproof.runtime.errors import InputError
from stageproof.runtime.text.hints import program

SCHEMA = "serving-1"


@dataclass(frozen=True)
class Cell:
    """One server under one load in one round. Lists have an entry for each request that was answered, in that order."""

    server: str
    load: str
    """Name of a `load.Load`."""
    round: int
    seconds: float
    latencies_ms: list[float]
    ended_s: list[float]
    """When each request completed, since the start of the cell."""
    errors: dict[str, int]
    """What came in place of an answer → how often; "wrong answer" if it is not the Predictor's for that image."""
    offered_per_s: float | None = None
    """Arrivals a second in an open loop."""
    late_ms: float | None = None
    """Median time between the arrival of a request and its sending, in an open loop."""
    client_cpu: float = 0.0
    """CPU time of the load generator per second."""
    server_cpu_ms: float | None = None
    """CPU time of the server for each image that it answered, warm-up and rest included."""
    pss_bytes: int | None = None
    """Memory of all processes of the server at the end (proportional set size)."""
    stages_ms: dict[str, float] = field(default_factory=dict)
    """Mean times in the service's own metrics, and `batch`, the mean number of images of a batch."""


_NUMBERS = (int, float)
_KEYS: Mapping[str, type | tuple[type, ...]] = {
    "started": str,
    "circumstances": dict,
    "bundle": dict,
    "precision": str,
    "images": dict,
    "threads": int,
    "rounds": int,
    "ceiling": list,
    "predictor": dict,
    "servers": list,
    "cells": list,
    "notes": list,
}
_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "server": str,
    "load": str,
    "round": int,
    "seconds": _NUMBERS,
    "latencies_ms": list,
    "ended_s": list,
    "errors": dict,
}


@dataclass(frozen=True)
class ServingRecord:
    """One run."""

    name: str
    """Name of its file."""
    facts: Mapping[str, Any]
    """All keys but the cells."""
    cells: tuple[Cell, ...]
    ceiling: tuple[Cell, ...]

    @property
    def servers(self) -> Mapping[str, Mapping[str, Any]]:
        """Name → title, settings, versions."""
        return {one["name"]: one for one in self.facts["servers"]}


def build(cells: list[Cell], ceiling: list[Cell], **about: Any) -> dict[str, Any]:
    """The record, JSON-ready. about: the other keys."""
    return {"schema": SCHEMA, **about, "ceiling": list(map(asdict, ceiling)), "cells": list(map(asdict, cells))}


def read_record(path: Path) -> ServingRecord:
    """The record in a file. Raises InputError for a file that is not a record, is truncated, or has another schema."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}. {_again()}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON, or is truncated: {error}. {_again()}") from error
    return parsed(content, str(path))


def parsed(content: Any, name: str) -> ServingRecord:
    """The record with this content. Raises InputError, with `name`, for invalid content."""
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        found = content.get("schema") if isinstance(content, dict) else content
        raise InputError(f"{name} has schema {str(found)[:40]!r}, expected {SCHEMA!r}. {_again()}")
    wrong = [key for key, kind in _KEYS.items() if not isinstance(content.get(key), kind)]
    if wrong:
        raise InputError(f"{name}: {', '.join(wrong)} cannot be read. {_again()}")
    facts = {key: value for key, value in content.items() if key not in ("cells", "ceiling")}
    lists = [tuple(cell(one, f"{name}, {key}") for one in content[key]) for key in ("cells", "ceiling")]
    if not all(isinstance(one, dict) and isinstance(one.get("name"), str) for one in content["servers"]):
        raise InputError(f"{name}: servers cannot be read. {_again()}")
    return ServingRecord(name, facts, *lists)


def cell(entry: Any, where: str) -> Cell:
    """The cell that `asdict` wrote. Raises InputError, with `where`, for invalid content."""
    wrong = (
        list(_TYPES)
        if not isinstance(entry, dict)
        else [key for key, kind in _TYPES.items() if not isinstance(entry.get(key), kind)]
    )
    if not wrong:
        lists = [entry[key] for key in ("latencies_ms", "ended_s")]
        if len(lists[0]) != len(lists[1]) or not all(isinstance(one, _NUMBERS) for of in lists for one in of):
            wrong = ["latencies_ms, ended_s"]
    if wrong:
        raise InputError(f"{where}: {', '.join(wrong)} of a cell cannot be read. {_again()}")
    known = {one.name for one in fields(Cell)}
    return Cell(**{key: value for key, value in entry.items() if key in known})


def _again() -> str:
    return f"Measure again: {program('benchmarks')} serving --out FILE."
