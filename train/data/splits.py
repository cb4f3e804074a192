"""Training and validation slices. A patient stays on one side, unless the published protocol is asked for."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from runtime.errors import DatasetError
from runtime.labels import LABELS


@dataclass(frozen=True)
class Split:
    """Positions of the slices on each side, and what the split cannot show."""

    training: np.ndarray
    validation: np.ndarray
    leaked: float
    """Share of validation slices whose patient is also in training, in [0, 1], as far as `groups` tells."""
    not_estimable: tuple[str, ...] = ()
    """Classes with fewer patients than folds: not every fold holds one out, and one person says nothing of a class."""


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


def _train_on_every_class(held_in: np.ndarray, labels: np.ndarray, groups: np.ndarray, folds: int) -> None:
    """Change the fold of a patient where all of a class would be held out at once; -1 is held out in none."""
    for label in np.unique(labels):
        people = np.unique(groups[labels == label])
        dealt = np.unique(held_in[labels == label])
        if len(dealt) == 1:
            held_in[groups == people[-1]] = -1 if len(people) == 1 else (dealt[0] + 1) % folds


def shuffled_labels(labels: np.ndarray, groups: np.ndarray, training: np.ndarray, seed: int) -> np.ndarray:
    """(N,) int64: the labels, those of the patients in `training` dealt anew among these patients.

    All slices of a patient get one label, that of a patient drawn without replacement, whose own is the one that most
    of its slices have. Labels of all other slices stay. A patient on both sides has two.

    labels, groups: (N,) int64. training: (K,) positions.
    """
    from train.evaluation.scores import stages

    _, patients = np.unique(groups[training], return_inverse=True)
    given = np.random.default_rng(seed).permutation(stages(labels[training], patients))
    shuffled = labels.copy()
    shuffled[training] = given[patients]
    return shuffled
