"""Splits slices into training, selection and validation, by patient or by slice."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from stageproof.runtime.errors import DatasetError
from stageproof.train.metrics.classification import stages

LEAST_SELECTION = 5
"""Minimum number of patients in the selection set."""


@dataclass(frozen=True)
class Split:
    """Indices of the slices in each part of a split."""

    training: np.ndarray
    validation: np.ndarray
    leaked: float
    """Share of validation slices whose group is also in training, in [0, 1]."""
    scarce: tuple[int, ...] = ()
    """Indices of classes with fewer patients than folds, of which some folds hold out none."""
    selection: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    """Indices of the selection set; empty if no epoch is selected."""
    left_out: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    """Indices of slices that are in no part because they may belong to several patients."""


def split_without(labels: np.ndarray, groups: np.ndarray, undecided: np.ndarray, **how: Any) -> Split:
    """As `split_slices`, for the slices that are not `undecided` ((N,) bool)."""
    rows = np.flatnonzero(~undecided)
    split = split_slices(labels[rows], groups[rows], **how)
    return replace(
        split, training=rows[split.training], validation=rows[split.validation], left_out=np.flatnonzero(undecided)
    )


def split_slices(
    labels: np.ndarray, groups: np.ndarray, *, by: str = "patient", folds: int = 5, fold: int = 0, seed: int = 0
) -> Split:
    """One fold of a k-fold split, stratified by class.

    labels, groups: (N,) int64.
    by: ``patient`` keeps all slices of a group on one side; ``slice`` splits slices individually, as in published
        results, so that the same patients appear in both training and validation.

    Each class is in the training part of every fold, so a class with a single patient is never held out. Raises
    DatasetError if there are fewer patients than folds.
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
        # Classes with fewer slices than folds are handled below.
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        for number, (_, validation) in enumerate(splitter.split(labels, labels, groups if by == "patient" else None)):
            held_in[validation] = number
    if by == "patient":
        _train_on_every_class(held_in, labels, groups, folds)
    training, validation = np.flatnonzero(held_in != fold), np.flatnonzero(held_in == fold)
    if not len(validation):
        raise DatasetError(f"Fold {fold + 1} of {folds} holds out no slice. Choose another fold or seed, or add data.")
    scarce = tuple(int(one) for one in np.unique(labels) if len(np.unique(groups[labels == one])) < folds)
    return Split(training, validation, float(np.isin(groups[validation], groups[training]).mean()), scarce)


def with_selection(
    split: Split, labels: np.ndarray, groups: np.ndarray, *, by: str, folds: int, seed: int, unit: str | None
) -> Split:
    """The split with a selection set taken from its training slices, to select an epoch without using validation data.

    It is as large as the validation part; with fewer than five folds, a quarter of the training slices.
    unit: ``patients`` or ``groups``; None if unknown: slices are then split individually. Raises DatasetError if the
    selection set would have fewer than five of them.
    """
    rows, parts = split.training, max(folds - 1, 4)
    units = len(np.unique(groups[rows])) if unit is not None and by == "patient" else len(rows)
    if units // parts < LEAST_SELECTION:
        what = unit if unit is not None and by == "patient" else "slices"
        raise DatasetError(
            f"--keep and --patience need a selection set of {LEAST_SELECTION} {what} or more; the {units} {what} that "
            f"are not held out give {units // parts}. Leave --keep and --patience out (the last epoch is kept), or add "
            f"data: {LEAST_SELECTION * parts} {what} are needed in addition to those held out."
        )
    inner = split_slices(labels[rows], groups[rows], by=by, folds=parts, seed=seed)
    return replace(split, training=rows[inner.training], selection=rows[inner.validation])


def _train_on_every_class(held_in: np.ndarray, labels: np.ndarray, groups: np.ndarray, folds: int) -> None:
    """If one fold would hold out all of a class, move one of its patients to another fold (-1: never held out)."""
    for label in np.unique(labels):
        people = np.unique(groups[labels == label])
        used = np.unique(held_in[labels == label])
        if len(used) == 1:
            held_in[groups == people[-1]] = -1 if len(people) == 1 else (used[0] + 1) % folds


def shuffled_labels(labels: np.ndarray, groups: np.ndarray, seed: int) -> np.ndarray:
    """(N,) int64: the labels, permuted between all patients of the data set.

    The label of a patient is the majority label of the slices; all slices of a patient get the same permuted label. A
    patient in both training and test has the same label in both, so a network that memorises patients is correct there;
    for other patients it is correct only by chance (Ojala and Garriga 2010).

    labels, groups: (N,) int64.
    """
    _, patients = np.unique(groups, return_inverse=True)
    return np.random.default_rng(seed).permutation(stages(labels, patients))[patients]
