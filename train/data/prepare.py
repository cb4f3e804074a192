"""From a source to slices with known patients, dealt into training and validation."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from runtime.labels import LABELS
from runtime.preprocess import InputSpec
from train.data.groups import with_groups
from train.data.loader import Slices, Unreadable, safe_loader
from train.data.patients import Patients, tell_apart
from train.data.phantom import phantom_samples
from train.data.sources import absent_classes, check_trainable, load_samples
from train.data.splits import Split, shuffled_labels, split_slices


@dataclass(frozen=True)
class Prepared:
    """A dataset ready to train on."""

    slices: Slices
    groups: np.ndarray
    """(N,) int64, equal for slices of one patient."""
    split: Split
    unreadable: tuple[Unreadable, ...]
    source: str
    digest: str
    told_by: str
    """What told the patients apart: ``file`` (a groups file), ``source`` (its own ids), ``pixels``, or ``nothing``."""
    likeness: Patients | None
    """How clearly the pixels tell them apart; None when the source or a file says who is who."""

    @property
    def leaked(self) -> float | None:
        """Share of validation slices whose patient is also in training; None when nobody knows who is who."""
        return None if self.told_by == "nothing" else self.split.leaked

    @property
    def absent(self) -> tuple[str, ...]:
        """Classes without a slice, which the network cannot learn."""
        return absent_classes(self.slices.labels)

    @property
    def not_estimable(self) -> tuple[str, ...]:
        """Classes with too few patients for figures; none when nobody knows who is who."""
        return () if self.told_by == "nothing" else self.split.not_estimable

    def _count(self) -> int | None:
        """Number of patients; None when nobody knows it."""
        return len(np.unique(self.groups)) if self.likeness is None else self.likeness.count

    def facts(self) -> dict[str, Any]:
        """What `run.json` says of the data; JSON-ready."""
        counts = np.bincount(self.slices.labels, minlength=len(LABELS)).tolist()
        return {
            "source": self.source,
            "digest": self.digest,
            "slices": len(self.slices),
            "slices_by_class": dict(zip(LABELS, counts, strict=True)),
            "patients": self._count(),
            "patients_told_by": self.told_by,
            "similarity": self.likeness.similarity() if self.likeness else None,
            "unreadable": len(self.unreadable),
        }

    def write(self, folder: Path) -> None:
        """Write `split.csv` (every slice: name, label, patient, side) and `unreadable.json` into `folder`."""
        side = np.full(len(self.slices), "training", dtype=object)
        side[self.split.validation] = "validation"
        with (folder / "split.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["name", "label", "patient", "side"])
            rows = zip(self.slices.names, self.slices.labels, self.groups, side, strict=True)
            writer.writerows((name, LABELS[label], int(group), where) for name, label, group, where in rows)
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
    shuffle_labels: int | None = None,
    allocate: Callable[[tuple[int, ...]], np.ndarray] | None = None,
) -> Prepared:
    """The slices at `path`, or phantoms when it is None, with patients told apart and dealt to two sides.

    groups: a file that says who is who (`train.data.groups`); None looks at the pixels, unless the source says.
    shuffle_labels: seed of a control whose training patients have each other's labels; None leaves them.
    allocate: gives the array that the pixels are kept in; None takes memory.

    Raises DatasetError for data that cannot be used.
    """
    samples = phantom_samples(seed=seed) if path is None else load_samples(path)
    check_trainable(samples)
    if groups is not None:
        samples = with_groups(samples, groups)
    slices, unreadable = safe_loader(samples, spec, max_unreadable, allocate, thumbnails=samples.groups is None)
    likeness = tell_apart(slices.thumbnails) if slices.groups is None else None
    slices = replace(slices, thumbnails=slices.thumbnails[:0].copy())  # they have told what they can
    people = likeness.groups if likeness is not None else slices.groups
    assert people is not None, "told apart above, where nobody else did"
    told_by = "file" if groups else "source" if likeness is None else "pixels" if likeness.found else "nothing"
    dealt = split_slices(slices.labels, people, by=split, folds=folds, fold=fold, seed=seed)
    if shuffle_labels is not None:
        labels = shuffled_labels(slices.labels, people, dealt.training, shuffle_labels)
        slices = replace(slices, labels=labels)
    return Prepared(slices, people, dealt, unreadable, samples.source, samples.digest(), told_by, likeness)
