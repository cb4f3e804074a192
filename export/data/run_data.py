"""The data that a run was trained on, found again: where it lay, or where the user says it is now.

Only data with the digest that the run recorded counts as the run's. Other data at the same path may hold training
slices under the names of held-out ones, so it is treated as gone, and said so.
"""

from __future__ import annotations

import csv
import io
import os
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from stageproof.export.data.sampling import UNKNOWN, Drawn, spread
from stageproof.runtime.errors import CheckpointError, DatasetError
from stageproof.runtime.system.regular_files import read_text
from stageproof.runtime.text.escapes import from_cell
from stageproof.train.data.phantom.__main__ import phantom_samples
from stageproof.train.data.samples import Samples
from stageproof.train.data.sources.source import load_samples
from stageproof.train.runs.record import data_path, read_record

PHANTOM_PEOPLE = 24
"""In each stage, of a run without data: the default of `train.data.phantom.__main__.phantom_samples`."""


@dataclass(frozen=True)
class RunData:
    """All slices of a run, or why there are none."""

    samples: Samples | None
    phantoms: bool
    """Whether the run was trained on phantoms."""
    problem: str = ""
    """Why there are no samples, as the beginning of a sentence."""
    digest: str = ""
    """SHA-256 of the data, as the run recorded it."""
    moved: bool = False
    """Whether they were found where the user says, not where they lay."""


def run_data(run: Path, moved: Path | None = None) -> RunData:
    """The slices that the run recorded.

    moved: data that the user names. It is taken for the run's own where it has the run's digest.

    Raises CheckpointError for a damaged record. Kept for the next call, since data is hashed as a whole.
    """
    record = read_record(run)
    digest, path = record["data"]["digest"], data_path(run, record)
    if path is None:
        return RunData(_population(record["options"]["seed"]), True, digest=digest)
    return _run_data(run, digest, path, _state(path), moved, _state(moved))


@lru_cache(maxsize=1)
def _population(seed: int) -> Samples:
    return phantom_samples(seed=seed)


def _state(path: Path | None) -> tuple[tuple[str, int, int], ...]:
    """Name, size and time of every file at `path`: what changes when the data does, without reading it."""
    if path is None:
        return ()
    files = [path] if path.is_file() else [Path(folder) / name for folder, _, names in os.walk(path) for name in names]
    found = []
    for file in files:
        with suppress(OSError):  # gone meanwhile, or a link to nowhere
            status = file.stat()
            found.append((str(file), status.st_size, status.st_mtime_ns))
    return tuple(found)


@lru_cache(maxsize=1)
def _run_data(
    run: Path, digest: str, path: Path, here: tuple[object, ...], moved: Path | None, there: tuple[object, ...]
) -> RunData:
    """As `run_data`. here, there: `_state` of both paths, so that nothing is kept beyond a change of them."""
    if moved is not None:
        samples = _loaded(moved)
        if samples is not None and samples.digest() == digest:
            return RunData(samples, False, digest=digest, moved=True)
    if not path.exists():
        return RunData(None, False, f"the data of {run.name} is no longer at {path}", digest)
    try:
        samples = load_samples(path)
    except (DatasetError, OSError) as error:
        return RunData(None, False, f"the data of {run.name} cannot be read: {str(error).removesuffix('.')}", digest)
    if samples.digest() != digest:
        return RunData(None, False, f"the data of {run.name} at {path} has changed since training", digest)
    return RunData(samples, False, digest=digest)


def _loaded(path: Path) -> Samples | None:
    """The labelled slices at `path`; None where there are none, as in a folder of loose images."""
    try:
        return load_samples(path)
    except (DatasetError, OSError):
        return None


def side_names(run: Path, side: str) -> set[str]:
    """Names of the slices that the run's split.csv puts on `side`: ``training`` or ``validation``.

    Raises CheckpointError where the file is missing or lacks a column.
    """
    return {from_cell(row["name"]) for row in _split(run) if row["side"] == side}


def patients(run: Path) -> dict[str, str]:
    """Name of a slice → its patient, its group, or itself where nobody knows the patients.

    Of every slice in the run's split.csv. Raises CheckpointError, as above.
    """
    column = "group" if "group" in _split(run)[0] else "patient"
    return {from_cell(row["name"]): row[column] or row["name"] for row in _split(run)}


def unit_of(run: Path) -> str:
    """What the people of the run's split.csv are: ``patients``, ``groups`` of one or more people each, or ``unknown``.

    Raises CheckpointError, as above.
    """
    rows = _split(run)
    column = "group" if "group" in rows[0] else "patient"
    if not all(row[column] for row in rows):
        return "unknown"
    return "groups" if column == "group" else "patients"


def _split(run: Path) -> list[dict[str, str]]:
    path = run / "split.csv"
    try:
        rows = list(csv.DictReader(io.StringIO(read_text(path), newline="")))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CheckpointError(f"{path} cannot be read: {error}. It says which slices the run held out.") from error
    if not rows or not {"name", "side"} <= set(rows[0]) or not {"patient", "group"} & set(rows[0]):
        raise CheckpointError(f"{path} has no rows with name, patient and side. It says which slices were held out.")
    return rows


def side(run: Path, samples: Samples, which: str) -> Samples:
    """The slices that the run's split.csv puts on one side. Raises DatasetError where there is none."""
    names = side_names(run, which)
    indices = np.array([index for index, name in enumerate(samples.names) if name in names], np.int64)
    if not len(indices):
        raise DatasetError(f"{samples.source} holds none of the slices that {run} used for {which}. Has it changed?")
    return samples.select(indices)


def unseen_phantoms(run: Path, count: int) -> Samples:
    """At most `count` phantoms of the population that the run was trained on, of people whom it never saw.

    Those beyond its own: a population that is asked for more people leaves the others as they are.
    """
    seed = read_record(run)["options"]["seed"]
    people = max(1, -(-count // (4 * 6)))
    return phantom_samples(patients=people, seed=seed, first=PHANTOM_PEOPLE)


def with_patients(run: Path, samples: Samples) -> Drawn:
    """Slices of the run with their people as its split.csv has them."""
    unit = unit_of(run)
    if unit == UNKNOWN:
        return Drawn(replace(samples, groups=None), unit)
    of = patients(run)
    _, groups = np.unique([of[name] for name in samples.names], return_inverse=True)
    return Drawn(replace(samples, groups=groups.astype(np.int64)), unit)


def training_samples(run: Path, limit: int, moved: Path | None = None) -> tuple[Samples | None, str]:
    """At most `limit` of the run's training slices with their patients as groups; or None, and why there are none."""
    data = run_data(run, moved)
    if data.samples is None:
        return None, data.problem
    samples = side(run, data.samples, "training")
    samples = samples.select(spread(len(samples), limit))
    of = patients(run)
    _, groups = np.unique([of[name] for name in samples.names], return_inverse=True)
    return replace(samples, groups=groups.astype(np.int64)), ""
