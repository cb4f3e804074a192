"""Finds the data that a run was trained on: at its recorded path, or at a new path that the user names.

Only data with the digest that the run recorded is accepted: other data at the same path may contain training slices
under the names of held-out ones. The message then says why the data is not used.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from stageproof.export.data.labelled import classes_of_run
from stageproof.export.data.sampling import UNKNOWN, Drawn, spread
from stageproof.runtime.errors import DatasetError
from stageproof.runtime.labels import LabelSet
from stageproof.train.data.phantom.__main__ import phantom_samples
from stageproof.train.data.samples import Samples
from stageproof.train.data.sources.source import load_samples
from stageproof.train.runs.record import data_path, data_seed, read_record
from stageproof.train.runs.split_file import read_split, unit_of

PHANTOM_PEOPLE = 24
"""Phantom patients in each class of a run without data: the default of `phantom_samples`."""


@dataclass(frozen=True)
class RunData:
    """All slices of a run, or the reason why they are not available."""

    samples: Samples | None
    phantoms: bool
    """Whether the run was trained on phantoms."""
    problem: str = ""
    """Why `samples` is None, as the beginning of a sentence."""
    digest: str = ""
    """SHA-256 of the data, as the run recorded it."""
    moved: bool = False
    """Whether the data was found at the path that the user names, not at the recorded one."""


def run_data(run: Path, moved: Path | None = None) -> RunData:
    """The slices that the run recorded.

    moved: data named by the user, used if it has the run's digest.

    Raises CheckpointError for a damaged record. The result is cached, since the digest reads all data.
    """
    record = read_record(run)
    digest, path, classes = record["data"]["digest"], data_path(run, record), classes_of_run(run, record)
    if path is None:
        return RunData(_population(data_seed(record), classes), True, digest=digest)
    return _run_data(run, digest, classes, path, _state(path), moved, _state(moved))


@lru_cache(maxsize=1)
def _population(seed: int, classes: LabelSet) -> Samples:
    return phantom_samples(seed=seed, classes=classes)


def _state(path: Path | None) -> tuple[tuple[str, int, int], ...]:
    """Name, size and modification time of every file at `path`, to notice changed data without reading it."""
    if path is None:
        return ()
    files = [path] if path.is_file() else [Path(folder) / name for folder, _, names in os.walk(path) for name in names]
    found = []
    for file in files:
        with suppress(OSError):  # deleted meanwhile, or a dangling link
            status = file.stat()
            found.append((str(file), status.st_size, status.st_mtime_ns))
    return tuple(found)


@lru_cache(maxsize=1)
def _run_data(
    run: Path,
    digest: str,
    classes: LabelSet,
    path: Path,
    state: tuple[object, ...],
    moved: Path | None,
    moved_state: tuple[object, ...],
) -> RunData:
    """As `run_data`. state, moved_state: `_state` of `path` and `moved`, to invalidate the cache when files change."""
    if moved is not None:
        with suppress(DatasetError, OSError):  # such as a folder of unlabelled images
            samples = load_samples(moved, None, classes, training_part=True)
            if samples.digest() == digest:
                return RunData(samples, False, digest=digest, moved=True)
    if not path.exists():
        return RunData(None, False, f"the data of {run.name} is no longer at {path}", digest)
    try:
        samples = load_samples(path, None, classes, training_part=True)
    except (DatasetError, OSError) as error:
        return RunData(None, False, f"the data of {run.name} cannot be read: {str(error).removesuffix('.')}", digest)
    if samples.digest() != digest:
        return RunData(None, False, f"the data of {run.name} at {path} has changed since training", digest)
    return RunData(samples, False, digest=digest)


def side_names(run: Path, side: str) -> set[str]:
    """Names of the slices that are on `side` in the run's split.csv: ``training`` or ``validation``.

    Raises CheckpointError if the file is missing or lacks a column.
    """
    return {name for name, (_, where) in read_split(run).items() if where == side}


def side(run: Path, samples: Samples, which: str) -> Samples:
    """The slices that are on side `which` in the run's split.csv. Raises DatasetError if there are none."""
    names = side_names(run, which)
    indices = np.array([index for index, name in enumerate(samples.names) if name in names], np.int64)
    if not len(indices):
        raise DatasetError(f"{samples.source} has none of the slices that {run} used for {which}. Has it changed?")
    return samples.select(indices)


def unseen_phantoms(run: Path, count: int) -> Samples:
    """At most `count` phantoms of the run's population, of patients that are not in its data.

    They follow the run's own patients in the generator's sequence, whose earlier patients do not depend on its length.
    """
    record = read_record(run)
    classes, seed = classes_of_run(run, record), data_seed(record)
    people = max(1, -(-count // (len(classes) * 6)))
    return phantom_samples(patients=people, seed=seed, first=PHANTOM_PEOPLE, classes=classes)


def with_patients(run: Path, samples: Samples) -> Drawn:
    """Slices of the run with their patients from its split.csv."""
    unit = unit_of(run)
    if unit == UNKNOWN:
        return Drawn(replace(samples, groups=None), unit)
    return Drawn(_grouped(run, samples), unit)


def _grouped(run: Path, samples: Samples) -> Samples:
    """The samples with their patients as groups; each slice is a group if patients are unknown."""
    of = read_split(run)
    _, groups = np.unique([of[name][0] or name for name in samples.names], return_inverse=True)
    return replace(samples, groups=groups.astype(np.int64))


def training_samples(run: Path, limit: int, moved: Path | None = None) -> tuple[Samples | None, str]:
    """(at most `limit` of the run's training slices with their patients as groups, ""); or (None, the reason)."""
    data = run_data(run, moved)
    if data.samples is None:
        return None, data.problem
    samples = side(run, data.samples, "training")
    return _grouped(run, samples.select(spread(len(samples), limit))), ""
