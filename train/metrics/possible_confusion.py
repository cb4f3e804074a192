"""Confusion matrices that the data do not exclude, for figures that no single patient changes."""

from __future__ import annotations

import numpy as np

from stageproof.train.metrics.intervals import LEVEL


def imagined(table: np.ndarray, by_class: np.ndarray, level: float = LEVEL) -> np.ndarray:
    """(B, classes, classes) float64: `table` with patients added in one cell each, as many as could be missing by luck.

    Of n patients of a class none was in a cell. A share of up to q of that class in it would still be missed with
    probability (1 - q)^n; q is where that is (1 - level) / 2, as in Clopper and Pearson's interval of 0 of n. The
    added patients make up that share. The least and greatest figure of these matrices bound what one kind of error
    that was not seen can do.

    table: (classes, classes) float64, as `train.metrics.classification.confusion` has it.
    by_class: (classes,), patients of each class, or an effective number of them; classes without any are left alone.
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
