"""Confidence intervals over patients. The patient is the sampling unit, since slices of a patient are not independent.

docs/statistics/intervals.md lists the interval of each metric, with its coverage in simulations.
"""

from __future__ import annotations

import math

import numpy as np

LEVEL = 0.95
LEAST_PATIENTS = 5
"""Minimum number of patients for a metric: with fewer, no rate can be estimated."""
MOST_ROWS = 1000
"""Maximum number of jackknife replicates: with more patients, groups of equal size are left out."""
_FLAT = 1e-12
_DEGREES = 1.5
"""Degrees of freedom of a standard error for each effective patient: 2 for normal contributions (error of a variance),
fewer for skewed ones; chosen by simulation (docs/statistics/intervals.md)."""


def leave_one_out(patients: int, most: int = MOST_ROWS) -> np.ndarray:
    """(1 + parts, patients) float64 weights: row 0 is the data itself, the others leave out one patient each.

    With more than `most` patients, row 1 + i leaves out those whose number is i modulo `most`.
    """
    parts = min(patients, most)
    rest = np.ones((1 + parts, patients))
    rest[1 + np.arange(patients) % parts, np.arange(patients)] = 0
    return rest


def exact(right: float, total: float, level: float = LEVEL) -> tuple[float, float]:
    """Interval of one share, as `exact_ends`."""
    low, high = exact_ends(np.array(right), np.array(total), level)
    return float(low), float(high)


def exact_ends(right: np.ndarray, total: np.ndarray | float, level: float = LEVEL) -> tuple[np.ndarray, np.ndarray]:
    """Exact interval of each share, `right` of `total` independent patients (Clopper and Pearson 1934).

    right: (…) 0 or more. total: the same shape, or one number. Both may be fractional, as the effective sample sizes of
    Korn and Graubard (1998). Both ends have the shape of `right`.
    """
    from scipy import special

    right, total = np.asarray(right, float), np.broadcast_to(np.asarray(total, float), np.shape(right))
    tail, some, not_all = (1 - level) / 2, right > 0, right < total
    low = special.betaincinv(np.where(some, right, 1), np.where(some, total - right, 0) + 1, tail)
    high = special.betaincinv(np.where(not_all, right, 0) + 1, np.where(not_all, total - right, 1), 1 - tail)
    return np.where(some, low, 0.0), np.where(not_all, high, 1.0)


def newcombe(area: float, positives: float, negatives: float, level: float = LEVEL) -> tuple[float, float]:
    """Interval of an area under the ROC curve, also if it is 0 or 1 (Newcombe 2006, method 5).

    positives, negatives: numbers of patients.
    """
    from scipy import optimize, stats

    square = stats.norm.ppf((1 + level) / 2) ** 2 / (positives * negatives)
    alike = (positives + negatives) / 2 - 1

    def end(found: float) -> float:
        def excess(true: float) -> float:
            spread = 1 + alike * ((1 - true) / (2 - true) + true / (1 + true))
            return float((found - true) ** 2 - square * true * (1 - true) * spread)

        return 0.0 if found <= 0 else float(optimize.brentq(excess, 0, found - _FLAT))

    return end(area), 1 - end(1 - area)


def jackknife(
    values: np.ndarray,
    patients: int,
    limits: tuple[float, float] = (0.0, 1.0),
    level: float = LEVEL,
    inflation: float = 1.0,
) -> tuple[float, float] | None:
    """Jackknife interval of a metric with values in `limits`.

    values: (1 + parts,) float64 for the weightings of `leave_one_out`; the first is that of the data itself.
    patients: number of patients that contribute to the metric.
    limits: minimum and maximum of the metric; may be infinite.
    inflation: variance of the metric divided by that for independent patients.

    A t interval with the standard error of the delete-one-patient jackknife, on the logit scale (log scale with one
    limit, linear without limits). The standard error allows for one further patient, and the degrees of freedom depend
    on the effective number of patients (after Satterthwaite 1946, from the kurtosis of their contributions). With two
    limits, the result is the union with the exact interval of a share with Korn and Graubard's effective number of
    patients, which has the nominal level if few predictions are wrong.

    None if leaving out any patient does not change the metric, since its variance is then unknown.
    """
    from scipy import special

    value, without = float(values[0]), values[1:][np.isfinite(values[1:])]
    change = without - without.mean() if len(without) > 1 else np.zeros(1)
    if np.abs(change).max() < _FLAT:
        return None
    squares, count = change**2, len(change)
    variance = inflation * (count - 1) / count * squares.sum()
    excess = count * (squares**2).sum() / squares.sum() ** 2 - 1
    carrying = max(1.0, min(count / max(excess, _FLAT), count - 1))
    tail = (1 + level) / 2
    degrees = min(_DEGREES * carrying, count - 1)
    times = float(special.stdtrit(degrees, tail)) * math.sqrt(variance * (1 + 1 / carrying))
    low, high = limits
    if not math.isfinite(high):
        if not math.isfinite(low):
            return value - times, value + times
        factor = math.exp(times / max(value - low, _FLAT))
        return low + (value - low) / factor, low + (value - low) * factor
    share = (value - low) / (high - low)
    if not 0 < share < 1:
        return None
    variance, times = variance / (high - low) ** 2, times / (high - low)
    centre, half = float(special.logit(share)), times / (share * (1 - share))
    narrower = float(special.ndtri(tail) / special.stdtrit(max(min(patients, count) - 1, 1), tail))
    effective = share * (1 - share) / variance * narrower**2
    ends = exact(share * effective, effective, level)
    first, last = float(special.expit(centre - half)), float(special.expit(centre + half))
    return low + (high - low) * min(first, ends[0]), low + (high - low) * max(last, ends[1])


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


def extreme_tables(table: np.ndarray, by_class: np.ndarray, level: float) -> np.ndarray:
    """(B, classes, classes) float64: matrices with the least and the greatest share of errors in every class at once.

    The shares are the ends of the classes' exact intervals at `level` for all of them together (Bonferroni). The errors
    are in the class as they are in `table`, in one column, in the nearest or in the farthest class in clinical order.
    The minimum and maximum of a metric over these matrices bound what independent patients can show.

    table, by_class: as for `possible_tables`; classes without patients do not change.
    """
    rows, classes = np.flatnonzero((by_class > 0) & (table.sum(1) > 0)), len(table)
    each = 1 - (1 - level) / max(len(rows), 1)
    seen = np.flatnonzero((by_class > 0) | (table.sum(0) > 0))
    found = []
    for end in (0, 1):
        places: dict[str, np.ndarray] = {}
        for row in rows:
            others = seen[seen != row]
            if not len(others):
                continue
            total, right = table[row].sum(), table[row, row]
            wrong = by_class[row] * (1 - right / total)
            share = float(exact_ends(wrong, by_class[row], each)[end])
            far = np.abs(others - row)
            where = {f"column {column}": np.eye(classes)[column] for column in others}
            where |= {"near": np.eye(classes)[others[far.argmin()]], "far": np.eye(classes)[others[far.argmax()]]}
            if right < total:
                where["as found"] = np.where(np.arange(classes) == row, 0, table[row]) / (total - right)
            for place in {*(f"column {column}" for column in seen), "near", "far", "as found"}:
                to = where.get(place, where["near"])
                one = places.setdefault(place, table.astype(float))
                one[row] = total * share * to
                one[row, row] = total * (1 - share)
        found += list(places.values())
    return np.stack(found) if found else table[None]
