"""Confusion matrices that are compatible with the data, for intervals of metrics that no single patient changes."""

from __future__ import annotations

import numpy as np

from stageproof.train.metrics.intervals import LEVEL


def possible_tables(table: np.ndarray, by_class: np.ndarray, level: float = LEVEL) -> np.ndarray:
    """(B, classes, classes) float64: `table` with patients added to one cell each, as many as may be missing by chance.

    If none of n patients of a class is in a cell, its true share q may still be positive: no such patient is observed
    with probability (1 - q)^n. q is the upper limit of the Clopper-Pearson interval of 0 of n, where this probability
    is (1 - level) / 2. Patients are added such that their share is q. The minimum and maximum of a metric over these
    matrices bound the effect of one kind of error that was not observed.

    table: (classes, classes) float64, as from `train.metrics.classification.confusion`.
    by_class: (classes,) number of patients, or effective number; classes without patients do not change.
    """
    tail = (1 - level) / 2
    seen = np.flatnonzero((by_class > 0) | (table.sum(0) > 0))
    found = []
    for row in np.flatnonzero(by_class > 0):
        missing = table[row].sum() * (tail ** (-1 / by_class[row]) - 1)
        for column in seen:
            one = table.copy()
            one[row, column] += missing
            found.append(one)
    return np.stack(found) if found else table[None]
