"""`run.json`, the record of a finished run: written, and read with a check of its schema. Light: needs no torch."""

from __future__ import annotations

import calendar
import json
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from stageproof.runtime.errors import CheckpointError
from stageproof.runtime.system.regular_files import read_text
from stageproof.runtime.text.hints import program

SCHEMA = 1
RECORD = "run.json"
_TIME = "%Y-%m-%dT%H:%M:%SZ"


def now() -> str:
    """The present time as records have it: ISO 8601, UTC, in seconds."""
    return time.strftime(_TIME, time.gmtime())


def write_record(record: Mapping[str, Any], folder: Path) -> None:
    """Write `run.json` in `folder`."""
    (folder / RECORD).write_text(json.dumps({"schema": SCHEMA, **record}, indent=2) + "\n", encoding="utf-8")


def read_record(run: Path) -> dict[str, Any]:
    """The content of a run's `run.json`. Raises CheckpointError when it is missing, broken or of another schema."""
    path = run / RECORD
    try:
        record = json.loads(read_text(path))
    except FileNotFoundError as error:
        raise CheckpointError(f"{run} holds no {RECORD}: it is not a finished run of {program('train')}.") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}.") from error
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        found = record.get("schema") if isinstance(record, dict) else type(record).__name__
        raise CheckpointError(f"{path} has schema {found!r}, this version reads {SCHEMA}. Train again, or upgrade.")
    return record


def finished_at(run: Path) -> tuple[float, int]:
    """When the run finished, for sorting: seconds since 1970 by its record, and when `run.json` was written last, ns.

    `python -m train.evaluate` writes the record anew, so the file's own time alone would make an older run the newest.
    """
    written = (run / RECORD).stat().st_mtime_ns
    with suppress(OSError, ValueError, KeyError, TypeError):
        created = json.loads((run / RECORD).read_text(encoding="utf-8"))["created"]
        return float(calendar.timegm(time.strptime(created, _TIME))), written
    return written / 1e9, written  # a damaged record is named when it is read


def absolute(path: Path) -> Path:
    """The path from the root, so that it means the same in every folder.

    A link at its end stays: what it points to may have a name without a suffix.
    """
    return path.resolve() if path.name in ("", "..") else path.parent.resolve() / path.name


def data_path(run: Path, record: Mapping[str, Any]) -> Path | None:
    """Where the data of the run lay; None for phantoms. It may be gone.

    Records of 0.1 may have the path as it was typed. Such a path is looked for in the working directory and in the
    folders above the run, in this order.
    """
    typed = record["options"]["data"]
    return None if typed is None else located(Path(typed), run)


def located(path: Path, run: Path) -> Path:
    """A recorded path from the root: as it stands, or where it is found from the folders named by `data_path`."""
    places = [absolute(path), *(above / path for above in run.resolve().parents)]
    return next((place for place in places if place.exists()), places[0])


def recorded_verdict(record: dict[str, Any]) -> str:
    """What the groups of a run are by its record: ``patients``, ``groups`` or ``unknown``.

    Runs of 0.1 record no verdict. Where they identified patients from image similarity, the method could tear one
    person into several, so that is unknown.
    """
    data = record["data"]
    verdict = data.get("verdict") or (data.get("similarity") or {}).get("verdict")
    if verdict in ("patients", "groups", "unknown"):
        return str(verdict)
    return "unknown" if data["patients_told_by"] in ("pixels", "nothing") else "patients"
