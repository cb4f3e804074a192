"""Training and validation slices. A patient stays on one side, unless the published protocol is asked for."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from runtime.errors import DatasetError
from runtime.labels import LABELS


@dataclass(frozen=True)
class Split:
    """Positions of the slices on each side, and how many of the second have their own patient in the first."""

    training: np.ndarray
    validation: np.ndarray
    leaked: float
    """Share of validation slices whose patient is also in training, in [0, 1], as far as `groups` tells."""


def split_slices(
    labels: np.ndarray, groups: np.ndarray, *, by: str = "patient", folds: int = 5, fold: int = 0, seed: int = 0
) -> Split:
    """One fold of a split stratified by class.

    labels, groups: (N,) int64.
    by: ``patient`` keeps each group whole; ``slice`` deals slices at random, as the published figures do, which puts
        the same people on both sides.

    Raises DatasetError when there are too few patients, or a class would have none to train on.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    units = len(np.unique(groups)) if by == "patient" else int(np.bincount(labels)[np.unique(labels)].min())
    if units < folds:
        kind = "patients" if by == "patient" else "slices in the smallest class"
        raise DatasetError(f"There are {units} {kind}, fewer than {folds} folds. Add data.")
    splitter = (StratifiedGroupKFold if by == "patient" else StratifiedKFold)(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # A class with fewer slices than folds is checked below, for the fold that is asked for.
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        training, validation = list(splitter.split(labels, labels, groups if by == "patient" else None))[fold]
    untrained = [LABELS[label] for label in np.unique(labels) if label not in labels[training]]
    if untrained:
        raise DatasetError(
            f"Fold {fold + 1} of {folds} leaves no patient of {', '.join(untrained)} to train on. Choose another seed."
        )
    leaked = float(np.isin(groups[validation], groups[training]).mean())
    return Split(training, validation, leaked)
