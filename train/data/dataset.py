"""`prepare`: reads a dataset, identifies its patients and splits it into training and validation."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from stageproof.runtime.errors import DatasetError
from stageproof.runtime.labels import FOUR_STAGES, LabelSet, label_set
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
from stageproof.train.metrics.classification import class_counts


@dataclass(frozen=True)
class Prepared:
    """A dataset ready to train on."""

    slices: Slices
    groups: np.ndarray
    """(N,) int64, equal for slices of one patient, or of one group (`Identified.verdict`)."""
    split: Split
    classes: LabelSet
    """The label set of the data; some classes may have no slice."""
    unreadable: tuple[Unreadable, ...]
    source: str
    digest: str
    who: Identified
    """The patients and how they were identified."""
    leaks_at_least: LeakBound | None = None
    """Lower bound of the leakage of a random split; None if patients are known."""
    skipped: tuple[Skipped, ...] = ()
    """Files of the source that were ignored."""

    @property
    def leaked(self) -> float | None:
        """Share of validation slices whose patient or group is also in training; None if patients are unknown."""
        return None if self.who.unit is None else self.split.leaked

    @property
    def not_estimable(self) -> tuple[str, ...]:
        """Classes with too few patients or groups to estimate metrics; empty if patients are unknown."""
        return () if self.who.unit is None else tuple(self.classes.names[index] for index in self.split.scarce)

    @property
    def absent(self) -> tuple[str, ...]:
        """Classes without slices, which the network cannot learn."""
        return absent_classes(self.slices.labels, self.classes)

    @property
    def patients_from(self) -> str:
        """Source of the patient ids: a key of `train.data.ids.WORDS`."""
        return self.who.kind

    @property
    def similarity(self) -> Patients | None:
        """The patients identified from image similarity; None if ids are used."""
        return self.who.similarity

    def facts(self) -> dict[str, Any]:
        """The entry ``data`` of `run.json`; JSON-serialisable."""
        return {
            "source": self.source,
            "digest": self.digest,
            "slices": len(self.slices),
            "slices_by_class": class_counts(self.slices.labels, self.classes),
            **self.who.facts(),
            "unreadable": len(self.unreadable),
            "not_taken": [{"reason": one.reason, "count": one.count} for one in self.skipped],
            "copies": int(self.similarity.moved.sum()) if self.similarity else None,
        }

    def sides(self) -> np.ndarray:
        """(N,) str: the side of each slice in the split, as in `split.csv`."""
        side = np.full(len(self.slices), "training", dtype=object)
        side[self.split.validation] = "validation"
        side[self.split.selection] = "selection"
        side[self.split.left_out] = "left out"
        return side

    def write(self, folder: Path) -> None:
        """Write `split.csv` (name, label, patient and side of every slice) and `unreadable.json` to `folder`.

        The third column is named group if groups may contain several patients, and is empty if patients are unknown.
        """
        unit = self.who.unit
        column = "group" if unit == "groups" else "patient"
        side = self.sides()
        classes = self.classes.names
        with (folder / "split.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["name", "label", column, "side"])
            rows = zip(self.slices.names, self.slices.labels, self.groups, side, strict=True)
            writer.writerows(
                (cell(name), classes[label], int(group) if unit else "", where) for name, label, group, where in rows
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
    classes: LabelSet | None = None,
    positive: Sequence[str] = (),
    shuffle_labels: int | None = None,
    select: bool = False,
    allocate: Callable[[tuple[int, ...]], np.ndarray] | None = None,
) -> Prepared:
    """The dataset at `path`, or phantoms if it is None, with patients, split into training and validation.

    max_unreadable: maximum share of unreadable files, in [0, 1]. split: ``patient`` or ``slice``.
    groups: a groups file (`train.data.identity.groups_file`). patient_pattern: regular expression that extracts ids
        from paths (`train.data.identity.patient_pattern`). If both are None, the patients are those of the ids in the
        data, else those identified from image similarity.
    classes: the label set; None: recognised from the data, or the four stages of phantoms. positive: its positive
        classes; (): the usual ones.
    shuffle_labels: seed for permuting the labels between patients, for a negative control; None: true labels.
    select: whether an epoch is selected, which needs a selection set of other patients.
    allocate: allocates the pixel array from its shape; None: in memory.

    Raises DatasetError for invalid data, and for a split by patient if patients are unknown.
    """
    if path is None:
        samples = phantom_samples(seed=seed, classes=classes or FOUR_STAGES)
    else:
        samples = load_samples(path, patient_pattern, classes, training_part=True)
    if positive:
        samples = replace(samples, classes=label_set(samples.classes.names, positive))
    check_trainable(samples)
    if groups is not None:
        samples = with_groups(samples, groups)
    made = samples.groups is not None and samples.ids is None  # phantoms, whose patients need no check
    slices, unreadable = safe_loader(samples, spec, max_unreadable, allocate, thumbnails=not made)
    who = identify(slices.thumbnails, slices.groups, slices.ids, samples.notes)
    bound = leak_bound(slices.thumbnails, slices.labels) if who.unit is None else None
    if bound is not None and split == "patient":
        raise DatasetError(refusal(path, who, bound))
    slices = replace(slices, thumbnails=slices.thumbnails[:0].copy(), ids=None)  # free memory that is no longer needed
    if shuffle_labels is not None:  # before the split, which is stratified by the labels used in training
        slices = replace(slices, labels=shuffled_labels(slices.labels, who.groups, shuffle_labels))
    parts = split_without(slices.labels, who.groups, who.undecided, by=split, folds=folds, fold=fold, seed=seed)
    if select:
        parts = with_selection(parts, slices.labels, who.groups, by=split, folds=folds, seed=seed, unit=who.unit)
    return Prepared(
        slices,
        who.groups,
        parts,
        samples.classes,
        unreadable,
        samples.source,
        samples.digest(),
        who,
        bound,
        samples.skipped,
    )
