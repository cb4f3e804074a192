"""Writes and reads `run.json`, the record of a finished run, and reads its evaluation. Does not import torch."""

from __future__ import annotations

import calendar
import json
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from stageproof.runtime.errors import CheckpointError, InputError
from stageproof.runtime.labels import LabelSet, label_set
from stageproof.runtime.system.regular_files import read_text
from stageproof.runtime.text.hints import program

SCHEMA = 1
RECORD, EVALUATION = "run.json", "evaluation.json"
_TIME = "%Y-%m-%dT%H:%M:%SZ"


def now() -> str:
    """The current time as in records: ISO 8601, UTC, in seconds."""
    return time.strftime(_TIME, time.gmtime())


def write_record(record: Mapping[str, Any], folder: Path) -> None:
    """Write `run.json` in `folder`."""
    (folder / RECORD).write_text(json.dumps({"schema": SCHEMA, **record}, indent=2) + "\n", encoding="utf-8")


def read_record(run: Path) -> dict[str, Any]:
    """The content of `run.json` in `run`. Raises CheckpointError if it is missing, damaged or has another schema."""
    path = run / RECORD
    try:
        record = json.loads(read_text(path))
    except FileNotFoundError as error:
        raise CheckpointError(f"{run} contains no {RECORD}: it is not a finished run of {program('train')}.") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}.") from error
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        found = record.get("schema") if isinstance(record, dict) else type(record).__name__
        raise CheckpointError(f"{path} has schema {found!r}, this version reads {SCHEMA}. Train again, or upgrade.")
    return record


def read_evaluation(folder: Path) -> dict[str, Any]:
    """The content of `evaluation.json` in `folder`, with the metrics of the two-way question of each level below
    ``positive``; schema 1 has them below ``demented``. Raises CheckpointError if it is missing or damaged."""
    path = folder / EVALUATION
    try:
        facts = json.loads(read_text(path))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}.") from error
    if not isinstance(facts, dict):
        raise CheckpointError(f"{path} contains {type(facts).__name__}, expected an object.")
    for level in (facts.get(name) for name in ("slices", "patients")):
        if isinstance(level, dict) and "demented" in level:
            level["positive"] = level.pop("demented")
    return facts


def label_set_of(record: Mapping[str, Any], run: Path) -> LabelSet:
    """The label set of a run, from its record; runs of earlier versions have ``labels`` alone, in clinical order.

    Raises CheckpointError if it is missing or invalid, or not the order of the outputs.
    """
    where, positive = run / RECORD, record.get("positive", [])
    labels: Any = record.get("labels")
    order: Any = record.get("clinical_order", labels)
    for key, value in (("labels", labels), ("clinical_order", order), ("positive", positive)):
        if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
            raise CheckpointError(f"{where}: {key} is {value!r}, expected a list of class names. Train again.")
    try:
        classes = label_set(order, positive)
    except InputError as error:
        raise CheckpointError(f"{where}: {error} Train again.") from error
    for key, value in (("clinical_order", order), ("labels", labels)):
        if value != list(classes.names):
            raise CheckpointError(
                f"{where}: {key} is {', '.join(value)}, expected {', '.join(classes.names)}: the outputs of a run are "
                "in clinical order. Train again."
            )
    return classes


def reported_classes(facts: Mapping[str, Any]) -> LabelSet:
    """The label set of an evaluation, a cross-validation or an audit, from the content of its JSON file."""
    return label_set(facts["clinical_order"], facts["positive"])


def finished_at(run: Path) -> tuple[float, int]:
    """Sort key of a run: when it finished (seconds since 1970), and when `run.json` was last written (ns).

    The modification time alone is not enough, because `python -m train.evaluate` rewrites the record.
    """
    written = (run / RECORD).stat().st_mtime_ns
    with suppress(OSError, ValueError, KeyError, TypeError):
        created = json.loads((run / RECORD).read_text(encoding="utf-8"))["created"]
        return float(calendar.timegm(time.strptime(created, _TIME))), written
    return written / 1e9, written  # `read_record` reports a damaged record


def absolute(path: Path) -> Path:
    """The absolute path, with symbolic links resolved except for a link at its end.

    The target of that link may have a name without the suffix that identifies the file type.
    """
    return path.resolve() if path.name in ("", "..") else path.parent.resolve() / path.name


def data_seed(record: Mapping[str, Any]) -> int:
    """The seed of the phantoms and the split of a run. record: content of `run.json`."""
    options = record["options"]
    seed = options.get("data_seed")
    return int(options["seed"] if seed is None else seed)


def data_path(run: Path, record: Mapping[str, Any]) -> Path | None:
    """Path of the data of the run, which may no longer exist; None for phantoms.

    Records of 0.1 may contain a relative path. It is looked for in the working directory, then in the parent folders of
    the run.
    """
    typed = record["options"]["data"]
    return None if typed is None else located(Path(typed), run)


def located(path: Path, run: Path) -> Path:
    """The absolute path of a recorded path, searched for in the folders listed in `data_path`."""
    places = [absolute(path), *(above / path for above in run.resolve().parents)]
    return next((place for place in places if place.exists()), places[0])


def recorded_verdict(record: dict[str, Any]) -> str:
    """Whether the groups of a run are ``patients``, ``groups`` (of patients) or ``unknown``, by its record.

    Runs of 0.1 have no verdict in their record. If they identified patients from image similarity, the answer is
    ``unknown``, because that method could split one patient into several.
    """
    data = record["data"]
    verdict = data.get("verdict") or (data.get("similarity") or {}).get("verdict")
    if verdict in ("patients", "groups", "unknown"):
        return str(verdict)
    return "unknown" if data["patients_told_by"] in ("pixels", "nothing") else "patients"
