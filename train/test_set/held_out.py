"""The slices that a run is judged on: those it held out, or other data without anybody the run has seen."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from stageproof.runtime.decoding.pool import read_isolated
from stageproof.runtime.errors import CheckpointError, DatasetError, ImageError
from stageproof.runtime.preprocess import InputSpec
from stageproof.train.data.decode import Slices, safe_loader, thumbnails_only
from stageproof.train.data.identity.groups_file import with_groups
from stageproof.train.data.identity.identify import identify
from stageproof.train.data.ids import Ids
from stageproof.train.data.patients.similarity import shows_head_of
from stageproof.train.data.phantom.slices import phantom_samples
from stageproof.train.data.samples import Samples
from stageproof.train.data.sources.source import load_samples
from stageproof.train.runs.record import data_path, recorded_verdict
from stageproof.train.runs.split_file import SPLIT, labels_trained_on, read_split


@dataclass(frozen=True)
class HeldOut:
    """Slices to judge a run on; position i of every array is the same slice."""

    slices: Slices
    """Decoded at the network's size."""
    patients: np.ndarray | None
    """(N,) int64 from 0, equal for slices of one patient, or of one group; None where patients are unknown."""
    patients_from: str
    """Where the patients are known from: a key of `train.data.ids.WORDS`."""
    source: str
    digest: str
    own: bool
    """Whether these are the slices that the run itself held out."""
    leaked: float | None
    """Share of these slices whose patient the run was trained on, in [0, 1]; None when that cannot be known."""
    seen: int
    """Slices of other data left out, because they show somebody of the run's own data."""
    unreadable: int
    training: Slices | None
    """The slices the run was trained on (pixels not of the network's size); None when they are not at hand."""
    training_patients: np.ndarray | None
    """(M,) int64, numbered as `patients` are; None where either is not known."""
    sizes: tuple[tuple[int, int, int], ...]
    """(width, height, how many) of the pictures as they were found, the commonest first; of 256 at most."""
    verdict: str = "patients"
    """What a group is: ``patients``, ``groups`` or ``unknown``, as
    `train.data.identity.identify.Identified.verdict`."""
    compared: bool = True
    """Whether other data was compared with the run's own; False where that is gone or has changed."""
    undecided: int = 0
    """Slices of other data left out, because they may be of several groups."""

    @property
    def unit(self) -> str | None:
        """What figures are counted and resampled by: ``patients`` or ``groups``; None where nobody knows."""
        return None if self.patients is None or self.verdict == "unknown" else self.verdict


def held_out(
    run: Path,
    record: dict[str, Any],
    data: Path | None,
    groups: Path | None = None,
    max_unreadable: float = 0.05,
    patient_pattern: str | None = None,
) -> HeldOut:
    """What the run held out, or the slices of `data` that show nobody of the run's own data.

    record: the content of its `run.json`.
    groups: a groups file for these slices. patient_pattern: reads ids from their paths. None for both takes the run's
        own word for its own data, and the ids that other data has, or image similarity.

    Raises DatasetError when the data has changed since the run, cannot be read, or leaves nothing that is new to the
    run; CheckpointError when the run does not say what it held out.
    """
    spec = InputSpec.from_dict(record["input"])
    recorded = data_path(run, record)
    samples = load_samples(data, patient_pattern) if data else _own_samples(record, recorded)
    digest = samples.digest()
    if groups is not None:
        samples = with_groups(samples, groups)
    given = samples.ids if groups is not None or patient_pattern is not None else None
    if digest == record["data"]["digest"]:
        return _own(run, record, samples, digest, spec, max_unreadable, given)
    if data is None or (recorded is not None and recorded.exists() and data.resolve() == recorded.resolve()):
        raise DatasetError(
            f"{samples.source} has changed since {run} was trained on it: its digest is {digest[:12]}…, the run's "
            f"{record['data']['digest'][:12]}…. What the run held out can no longer be told. Bring the data back, or "
            "give other data with --data."
        )
    own = _own_samples(record, recorded) if recorded is None or recorded.exists() else None
    if own is not None and own.digest() != record["data"]["digest"]:
        own = None
    return _other(run, samples, digest, own, spec, max_unreadable)


def _own_samples(record: dict[str, Any], recorded: Path | None) -> Samples:
    if recorded is None:
        return phantom_samples(seed=record["options"]["seed"])
    if not recorded.exists():
        raise DatasetError(f"The run's data is no longer at {recorded}. Say where it is: --data DIR_OR_PARQUET.")
    return load_samples(recorded)


def _own(
    run: Path,
    record: dict[str, Any],
    samples: Samples,
    digest: str,
    spec: InputSpec,
    max_unreadable: float,
    given: Ids | None,
) -> HeldOut:
    dealt = read_split(run)
    sides = np.array([dealt.get(name, ("", "unreadable"))[1] for name in samples.names])
    if not (sides == "validation").any() or not (sides == "training").any():
        raise CheckpointError(f"{run / SPLIT} does not deal the slices of {samples.source} to two sides. Train again.")
    chosen = samples.select(np.flatnonzero(sides == "validation"))
    slices, unreadable = safe_loader(chosen, spec, max_unreadable)
    training, _ = thumbnails_only(samples.select(np.flatnonzero(sides == "training")), max_unreadable)
    if record.get("split", {}).get("shuffled_labels") is not None:
        slices, training = _as_trained(slices, run), _as_trained(training, run)
    others = tuple(name for name, side in zip(samples.names, sides, strict=True) if side == "selection")
    names = (*slices.names, *training.names, *others)
    if given is not None:
        who = dict(zip(samples.names, map(str, given.subjects), strict=True))
    else:
        who = {name: patient for name, (patient, _) in dealt.items()}
    people = np.unique([who[name] for name in names], return_inverse=True)[1].astype(np.int64)
    held = np.unique(people[: len(slices)])
    number = np.empty(people.max() + 1, np.int64)
    number[np.concatenate([held, np.setdiff1d(people, held)])] = np.arange(len(number))  # those held out come first
    mine, seen = number[people[: len(slices)]], number[people[len(slices) :]]
    theirs = seen[: len(training)]
    patients_from = record["data"]["patients_told_by"] if given is None else given.kind
    verdict = recorded_verdict(record) if given is None else "groups" if given.scans else given.verdict
    known = verdict != "unknown"
    return HeldOut(
        slices,
        mine if known else None,
        patients_from,
        samples.source,
        digest,
        own=True,
        leaked=float(np.isin(mine, seen).mean()) if known else None,
        seen=0,
        unreadable=len(unreadable),
        training=training,
        training_patients=theirs if known else None,
        sizes=_sizes(chosen),
        verdict=verdict,
    )


def _other(
    run: Path,
    samples: Samples,
    digest: str,
    own: Samples | None,
    spec: InputSpec,
    max_unreadable: float,
) -> HeldOut:
    slices, unreadable = safe_loader(samples, spec, max_unreadable)
    who = identify(slices.thumbnails, slices.groups, slices.ids, samples.notes)
    groups, known = who.groups, who.unit is not None
    kept = np.ones(len(slices), bool)
    if own is not None:
        alike = shows_head_of(slices.thumbnails, thumbnails_only(own, 1.0)[0].thumbnails)
        kept = ~np.isin(groups, groups[alike])
    seen, undecided = int((~kept).sum()), kept & who.undecided
    kept &= ~who.undecided
    if not kept.any():
        raise DatasetError(
            f"Every slice of {samples.source} shows somebody of the data that {run} was made with, so it says nothing "
            "about new patients. Leave --data out to evaluate the slices that the run held out."
        )
    rows = np.flatnonzero(kept)
    left = Slices(
        slices.pixels[rows],
        slices.thumbnails[rows],
        slices.labels[rows],
        tuple(slices.names[row] for row in rows),
        groups[rows],
    )
    return HeldOut(
        left,
        np.unique(groups[rows], return_inverse=True)[1].astype(np.int64) if known else None,
        who.kind,
        samples.source,
        digest,
        own=False,
        leaked=0.0 if known and own is not None else None,
        seen=seen,
        undecided=int(undecided.sum()),
        unreadable=len(unreadable),
        training=None,
        training_patients=None,
        sizes=_sizes(samples),
        verdict=who.verdict,
        compared=own is not None,
    )


def _as_trained(slices: Slices, run: Path) -> Slices:
    """The slices with the labels of split.csv: those that a control run was given in place of the data's own."""
    given = labels_trained_on(run)
    return replace(slices, labels=np.array([given[name] for name in slices.names], np.int64))


def _sizes(samples: Samples) -> tuple[tuple[int, int, int], ...]:
    found: Counter[tuple[int, int]] = Counter()
    for index in np.unique(np.linspace(0, len(samples) - 1, min(len(samples), 256)).astype(int)):
        with suppress(ImageError, OSError):  # counted as unreadable already
            found[read_isolated(samples.read(index)).image.size] += 1
    return tuple((width, height, count) for (width, height), count in found.most_common())
