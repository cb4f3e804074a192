"""`held_out`: the slices to evaluate a run on, either those it held out or other data without patients of the run."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from stageproof.runtime.decoding.pool import read_isolated
from stageproof.runtime.errors import CheckpointError, DatasetError, ImageError
from stageproof.runtime.labels import LabelSet
from stageproof.runtime.preprocess import InputSpec
from stageproof.train.data.decode import Slices, safe_loader, thumbnails_only
from stageproof.train.data.identity.groups_file import with_groups
from stageproof.train.data.identity.identify import identify
from stageproof.train.data.ids import Ids
from stageproof.train.data.patients.similarity import shows_patient_of
from stageproof.train.data.phantom.slices import phantom_samples
from stageproof.train.data.samples import Samples
from stageproof.train.data.sources.source import OTHER_PART, load_samples
from stageproof.train.runs.record import data_path, data_seed, label_set_of, recorded_verdict
from stageproof.train.runs.split_file import SPLIT, labels_trained_on, read_split


@dataclass(frozen=True)
class HeldOut:
    """Slices to evaluate a run on. All arrays have one entry for each slice, in the same order."""

    slices: Slices
    """Decoded at the input size of the network."""
    patients: np.ndarray | None
    """(N,) int64 from 0, equal for slices of one patient or group; None if patients are unknown."""
    patients_from: str
    """Source of the patient ids: a key of `train.data.ids.WORDS`."""
    source: str
    digest: str
    own: bool
    """Whether these are the slices that the run held out."""
    leaked: float | None
    """Share of these slices that show a patient of the training set, in [0, 1]; None if unknown."""
    seen: int
    """Number of slices of other data left out because they show patients in the data of the run."""
    unreadable: int
    training: Slices | None
    """The training slices of the run (thumbnails only); None if not available."""
    training_patients: np.ndarray | None
    """(M,) int64, with the numbers of `patients`; None if unknown."""
    sizes: tuple[tuple[int, int, int], ...]
    """(width, height, count) of the image files, most frequent first, from a sample of at most 256."""
    verdict: str = "patients"
    """``patients``, ``groups`` or ``unknown``, as `train.data.identity.identify.Identified.verdict`."""
    compared: bool = True
    """False if other data could not be compared with the data of the run, which no longer exists or has changed."""
    undecided: int = 0
    """Number of slices of other data left out because they may belong to several groups."""
    samples: Samples | None = None
    """The evaluated slices, encoded, of other data."""
    run_samples: Samples | None = None
    """All slices of the run, encoded, beside other data; None if they could not be compared."""

    @property
    def unit(self) -> str | None:
        """Sampling unit of metrics and intervals: ``patients`` or ``groups``; None if unknown."""
        return None if self.patients is None or self.verdict == "unknown" else self.verdict


def held_out(
    run: Path,
    record: dict[str, Any],
    data: Path | None,
    groups: Path | None = None,
    max_unreadable: float = 0.05,
    patient_pattern: str | None = None,
) -> HeldOut:
    """The slices that the run held out, or those slices of `data` that show no patient in the data of the run.

    record: content of `run.json`.
    groups: a groups file for these slices. patient_pattern: regular expression that extracts ids from paths. If both
        are None, patients are those recorded in the run or, for other data, those of its ids, else those identified
        from image similarity.

    The classes are those of the run; `data` may lack some of them.

    Raises DatasetError if the data has changed since training, cannot be read, has a class that the run does not have,
    or has no slice of other patients; CheckpointError if the split of the run cannot be read.
    """
    spec, classes = InputSpec.from_dict(record["input"]), label_set_of(record, run)
    recorded = data_path(run, record)
    samples = _read(data, patient_pattern, classes) if data else _own_samples(record, recorded, classes)
    digest = samples.digest()
    if data and digest != record["data"]["digest"] and any(OTHER_PART in one.reason for one in samples.skipped):
        samples = load_samples(data, patient_pattern, classes)  # raises DatasetError, which lists the parts
    if groups is not None:
        samples = with_groups(samples, groups)
    given = samples.ids if groups is not None or patient_pattern is not None else None
    if digest == record["data"]["digest"]:
        return _own(run, record, samples, digest, spec, max_unreadable, given)
    if data is None or (recorded is not None and recorded.exists() and data.resolve() == recorded.resolve()):
        raise DatasetError(
            f"{samples.source} has changed since {run} was trained on it: its digest is {digest[:12]}…, the run has "
            f"{record['data']['digest'][:12]}…. The held-out slices cannot be determined. Restore the data, or give "
            "other data with --data."
        )
    own = _own_samples(record, recorded, classes) if recorded is None or recorded.exists() else None
    if own is not None and own.digest() != record["data"]["digest"]:
        own = None
    return _other(run, samples, digest, own, spec, max_unreadable)


def _own_samples(record: dict[str, Any], recorded: Path | None, classes: LabelSet) -> Samples:
    if recorded is None:
        return phantom_samples(seed=data_seed(record), classes=classes)
    if not recorded.exists():
        raise DatasetError(f"The data of the run is no longer at {recorded}. Give its new path: --data DIR_OR_PARQUET.")
    return _read(recorded, None, classes)


def _read(path: Path, patient_pattern: str | None, classes: LabelSet) -> Samples:
    """As a run reads its data: of a predefined split, the training part."""
    return load_samples(path, patient_pattern, classes, training_part=True)


def _own(
    run: Path,
    record: dict[str, Any],
    samples: Samples,
    digest: str,
    spec: InputSpec,
    max_unreadable: float,
    given: Ids | None,
) -> HeldOut:
    split = read_split(run)
    sides = np.array([split.get(name, ("", "unreadable"))[1] for name in samples.names])
    if not (sides == "validation").any() or not (sides == "training").any():
        raise CheckpointError(
            f"{run / SPLIT} has no training or no validation slices of {samples.source}. Train again."
        )
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
        who = {name: patient for name, (patient, _) in split.items()}
    people = np.unique([who[name] for name in names], return_inverse=True)[1].astype(np.int64)
    held = np.unique(people[: len(slices)])
    number = np.empty(people.max() + 1, np.int64)
    number[np.concatenate([held, np.setdiff1d(people, held)])] = np.arange(len(number))  # held-out patients first
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
        sizes=image_sizes(chosen),
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
        alike = shows_patient_of(slices.thumbnails, thumbnails_only(own, 1.0)[0].thumbnails)
        kept = ~np.isin(groups, groups[alike])
    seen, undecided = int((~kept).sum()), kept & who.undecided
    kept &= ~who.undecided
    at = {name: index for index, name in enumerate(samples.names)}
    if not kept.any():
        raise DatasetError(
            f"Every slice of {samples.source} shows a patient in the data of {run}, so it cannot be used to evaluate "
            "the run on new patients. Leave --data out to evaluate the slices that the run held out."
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
        sizes=image_sizes(samples),
        verdict=who.verdict,
        compared=own is not None,
        samples=samples.select(np.array([at[name] for name in left.names], np.int64)),
        run_samples=own,
    )


def _as_trained(slices: Slices, run: Path) -> Slices:
    """The slices with the labels of split.csv, which a control run used in place of the true labels."""
    given = labels_trained_on(run)
    return replace(slices, labels=np.array([given[name] for name in slices.names], np.int64))


def image_sizes(samples: Samples) -> tuple[tuple[int, int, int], ...]:
    """(width, height, count) of the image files, most frequent first, of at most 256 of them, evenly spaced."""
    found: Counter[tuple[int, int]] = Counter()
    for index in np.unique(np.linspace(0, len(samples) - 1, min(len(samples), 256)).astype(int)):
        with suppress(ImageError, OSError):  # already counted as unreadable
            found[read_isolated(samples.read(index)).image.size] += 1
    return tuple((width, height, count) for (width, height), count in found.most_common())
