"""Training, selection and validation slices, each patient in one of them unless a split by slice is asked for."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from stageproof.runtime.errors import DatasetError
from stageproof.runtime.labels import LABELS

LEAST_SELECTION = 5
"""Patients in the part that an epoch is selected on, at least."""


@dataclass(frozen=True)
class Split:
    """Positions of the slices on each side, and what the split cannot show."""

    training: np.ndarray
    validation: np.ndarray
    leaked: float
    """Share of validation slices whose patient is also in training, in [0, 1], as far as `groups` tells."""
    not_estimable: tuple[str, ...] = ()
    """Classes with fewer patients than folds: not every fold holds one out, and one person says nothing of a class."""
    selection: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    """Positions of the third part, on which an epoch is selected; empty where nothing is selected."""
    left_out: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    """Positions of slices that are in no part, since they may be of patients on several sides."""


def split_without(labels: np.ndarray, groups: np.ndarray, undecided: np.ndarray, **how: Any) -> Split:
    """As `split_slices`, of the slices that are not `undecided` ((N,) bool)."""
    rows = np.flatnonzero(~undecided)
    dealt = split_slices(labels[rows], groups[rows], **how)
    return replace(
        dealt, training=rows[dealt.training], validation=rows[dealt.validation], left_out=np.flatnonzero(undecided)
    )


def split_slices(
    labels: np.ndarray, groups: np.ndarray, *, by: str = "patient", folds: int = 5, fold: int = 0, seed: int = 0
) -> Split:
    """One fold of a split stratified by class.

    labels, groups: (N,) int64.
    by: ``patient`` keeps each group whole; ``slice`` deals slices at random, as the published figures do, which puts
        the same people on both sides.

    Every class is in training in every fold: one that has a single patient is never held out. Raises DatasetError when
    there are too few patients for the folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    units = len(np.unique(groups)) if by == "patient" else int(np.bincount(labels)[np.unique(labels)].min())
    if units < folds:
        kind = "patients" if by == "patient" else "slices in the smallest class"
        raise DatasetError(f"There are {units} {kind}, fewer than {folds} folds. Add data.")
    if (largest := int(np.bincount(labels).max())) < folds:
        raise DatasetError(f"The largest class has {largest} slices, fewer than {folds} folds. Add data.")
    splitter = (StratifiedGroupKFold if by == "patient" else StratifiedKFold)(folds, shuffle=True, random_state=seed)
    held_in = np.empty(len(labels), np.int64)
    with warnings.catch_warnings():
        # A class with fewer slices than folds is dealt with below.
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        for number, (_, validation) in enumerate(splitter.split(labels, labels, groups if by == "patient" else None)):
            held_in[validation] = number
    if by == "patient":
        _train_on_every_class(held_in, labels, groups, folds)
    training, validation = np.flatnonzero(held_in != fold), np.flatnonzero(held_in == fold)
    if not len(validation):
        raise DatasetError(f"Fold {fold + 1} of {folds} holds nobody out. Choose another fold or seed, or add data.")
    people = [len(np.unique(groups[labels == label])) for label in range(len(LABELS))]
    scarce = tuple(name for name, count in zip(LABELS, people, strict=True) if 0 < count < folds)
    return Split(training, validation, float(np.isin(groups[validation], groups[training]).mean()), scarce)


def with_selection(
    dealt: Split, labels: np.ndarray, groups: np.ndarray, *, by: str, folds: int, seed: int, unit: str | None
) -> Split:
    """The split with a third part taken from its training slices: the epoch is selected on it, not on those reported.

    It is as large as the part held out, and a quarter of the training slices where there are fewer than five folds.
    unit: ``patients`` or ``groups``; None where nobody knows them, and slices are dealt. Raises DatasetError when the
    part would have fewer than five of them.
    """
    rows, parts = dealt.training, max(folds - 1, 4)
    units = len(np.unique(groups[rows])) if unit is not None and by == "patient" else len(rows)
    if units // parts < LEAST_SELECTION:
        what = unit if unit is not None and by == "patient" else "slices"
        raise DatasetError(
            f"--keep and --patience select an epoch on a third part of the data, of {LEAST_SELECTION} {what} or more; "
            f"the {units} {what} that are not held out give {units // parts}. Leave --keep and --patience out (the "
            f"last epoch is kept), or add data: {LEAST_SELECTION * parts} {what} besides those held out."
        )
    inner = split_slices(labels[rows], groups[rows], by=by, folds=parts, seed=seed)
    return replace(dealt, training=rows[inner.training], selection=rows[inner.validation])


def _train_on_every_class(held_in: np.ndarray, labels: np.ndarray, groups: np.ndarray, folds: int) -> None:
    """Change the fold of a patient where all of a class would be held out at once; -1 is held out in none."""
    for label in np.unique(labels):
        people = np.unique(groups[labels == label])
        dealt = np.unique(held_in[labels == label])
        if len(dealt) == 1:
            held_in[groups == people[-1]] = -1 if len(people) == 1 else (dealt[0] + 1) % folds


def shuffled_labels(labels: np.ndarray, groups: np.ndarray, seed: int) -> np.ndarray:
    """(N,) int64: the labels, those of the patients permuted among all patients, of every part of the split.

    All slices of a patient get one label, that of a patient drawn without replacement, whose own is the one that most
    of its slices have. A patient in training and test has the same label in both, so a network that remembers patients
    is right about it; about anybody else it can only be right by chance (Ojala and Garriga 2010).

    labels, groups: (N,) int64.
    """
    from stageproof.train.metrics.classification import stages

    _, patients = np.unique(groups, return_inverse=True)
    given: np.ndarray = np.random.default_rng(seed).permutation(stages(labels, patients))[patients]
    return given
