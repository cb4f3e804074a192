"""From a source to slices with known patients, dealt into training and validation."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from stageproof.runtime.errors import DatasetError
from stageproof.runtime.labels import LABELS
from stageproof.runtime.preprocess import InputSpec
from stageproof.runtime.text.escapes import cell
from stageproof.train.data.decode import Slices, Unreadable, safe_loader
from stageproof.train.data.identity.groups_file import with_groups
from stageproof.train.data.identity.identify import Identified, identify
from stageproof.train.data.leak_bound import LeakBound, leak_bound
from stageproof.train.data.patients.from_pixels import Patients
from stageproof.train.data.phantom.slices import phantom_samples
from stageproof.train.data.samples import Skipped
from stageproof.train.data.sources.source import absent_classes, check_trainable, load_samples
from stageproof.train.data.splits import Split, shuffled_labels, split_without, with_selection
from stageproof.train.data.unknown import refusal


@dataclass(frozen=True)
class Prepared:
    """A dataset ready to train on."""

    slices: Slices
    groups: np.ndarray
    """(N,) int64, equal for slices of one patient, or of one group (`Identified.verdict`)."""
    split: Split
    unreadable: tuple[Unreadable, ...]
    source: str
    digest: str
    who: Identified
    """Who the patients are, and how that is known."""
    leaks_at_least: LeakBound | None = None
    """What a random split leaks at least; None where the patients are known."""
    skipped: tuple[Skipped, ...] = ()
    """Files of the source that were not taken."""

    @property
    def leaked(self) -> float | None:
        """Share of validation slices whose patient or group is also in training; None when patients are unknown."""
        return None if self.who.unit is None else self.split.leaked

    @property
    def not_estimable(self) -> tuple[str, ...]:
        """Classes with too few patients or groups for figures; none when patients are unknown."""
        return () if self.who.unit is None else self.split.not_estimable

    @property
    def absent(self) -> tuple[str, ...]:
        """Classes without a slice, which the network cannot learn."""
        return absent_classes(self.slices.labels)

    @property
    def patients_from(self) -> str:
        """Where the patients are known from: a key of `train.data.ids.WORDS`."""
        return self.who.kind

    @property
    def likeness(self) -> Patients | None:
        """What image similarity shows; None where ids are used."""
        return self.who.similarity

    def facts(self) -> dict[str, Any]:
        """What `run.json` says of the data; JSON-ready."""
        counts = np.bincount(self.slices.labels, minlength=len(LABELS)).tolist()
        return {
            "source": self.source,
            "digest": self.digest,
            "slices": len(self.slices),
            "slices_by_class": dict(zip(LABELS, counts, strict=True)),
            **self.who.facts(),
            "unreadable": len(self.unreadable),
            "not_taken": [{"reason": one.reason, "count": one.count} for one in self.skipped],
            "copies": int(self.likeness.moved.sum()) if self.likeness else None,
        }

    def write(self, folder: Path) -> None:
        """Write `split.csv` (every slice: name, label, patient, side) and `unreadable.json` into `folder`.

        The third column is called group where groups may be several people, and is empty where nobody knows them.
        """
        unit = self.who.unit
        column = "group" if unit == "groups" else "patient"
        side = np.full(len(self.slices), "training", dtype=object)
        side[self.split.validation] = "validation"
        side[self.split.selection] = "selection"
        side[self.split.left_out] = "left out"
        with (folder / "split.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["name", "label", column, "side"])
            rows = zip(self.slices.names, self.slices.labels, self.groups, side, strict=True)
            writer.writerows(
                (cell(name), LABELS[label], int(group) if unit else "", where) for name, label, group, where in rows
            )
        left_out = json.dumps([asdict(item) for item in self.unreadable], indent=2)
        (folder / "unreadable.json").write_text(left_out + "\n", encoding="utf-8")


def prepare(
    path: Path | None,
    spec: InputSpec,
    *,
    max_unreadable: float,
    split: str,
    fold: int,
    folds: int,
    seed: int,
    groups: Path | None = None,
    patient_pattern: str | None = None,
    shuffle_labels: int | None = None,
    select: bool = False,
    allocate: Callable[[tuple[int, ...]], np.ndarray] | None = None,
) -> Prepared:
    """The slices at `path`, or phantoms when it is None, with their patients, split into training and validation.

    groups: a groups file (`train.data.identity.groups_file`). patient_pattern: reads ids from paths
    (`train.data.identity.patient_pattern`).
        None for both uses the ids that the source has, or image similarity.
    shuffle_labels: seed of a control whose patients, of every part, have each other's labels; None leaves them.
    select: whether an epoch is selected, for which patients are taken from training to a third part.
    allocate: gives the array that the pixels are kept in; None takes memory.

    Raises DatasetError for data that cannot be used, and for a split by patient where nobody knows the patients.
    """
    samples = phantom_samples(seed=seed) if path is None else load_samples(path, patient_pattern)
    check_trainable(samples)
    if groups is not None:
        samples = with_groups(samples, groups)
    made = samples.groups is not None and samples.ids is None  # phantoms: nobody doubts whose they are
    slices, unreadable = safe_loader(samples, spec, max_unreadable, allocate, thumbnails=not made)
    who = identify(slices.thumbnails, slices.groups, slices.ids, samples.notes)
    bound = leak_bound(slices.thumbnails, slices.labels) if who.unit is None else None
    if bound is not None and split == "patient":
        raise DatasetError(refusal(path, who, bound))
    slices = replace(slices, thumbnails=slices.thumbnails[:0].copy(), ids=None)  # not needed any more
    if shuffle_labels is not None:  # before the split, which is stratified by the labels that are learned
        slices = replace(slices, labels=shuffled_labels(slices.labels, who.groups, shuffle_labels))
    dealt = split_without(slices.labels, who.groups, who.undecided, by=split, folds=folds, fold=fold, seed=seed)
    if select:
        dealt = with_selection(dealt, slices.labels, who.groups, by=split, folds=folds, seed=seed, unit=who.unit)
    return Prepared(
        slices, who.groups, dealt, unreadable, samples.source, samples.digest(), who, bound, samples.skipped
    )
