"""Intervals of weighted differences and of ratios of two proportions."""

from __future__ import annotations

import numpy as np

from stageproof.train.metrics.intervals import LEAST_PATIENTS, LEVEL, exact_ends


def why_too_few(sick: int, well: int) -> str | None:
    """The reason if there are too few positive or negative patients for an estimate; None if there are not."""
    if min(sick, well) >= LEAST_PATIENTS:
        return None
    people = f"{sick} positive and {well} negative patients"
    return f"not estimable: {people}, fewer than {LEAST_PATIENTS} of one of them"


def difference_ends(
    first: np.ndarray, second: np.ndarray, total: int, weight: np.ndarray | float = 1.0, level: float = LEVEL
) -> tuple[np.ndarray, np.ndarray]:
    """Interval of first/total - weight · second/total, for two exclusive outcomes of the same patients.

    Method of variance estimates recovery (Zou and Donner 2008), from the exact interval of each proportion and the
    correlation of two cells of a multinomial distribution.

    first, second: (…) numbers of patients, first + second <= total. weight: 0 or more, of the same shape or one number.
    """
    first, second, weight = np.asarray(first, float), np.asarray(second, float), np.asarray(weight, float)
    one, two = first / total, second / total
    (one_low, one_high), (two_low, two_high) = exact_ends(first, total, level), exact_ends(second, total, level)
    with np.errstate(invalid="ignore", divide="ignore"):
        together = -np.sqrt(one * two / ((1 - one) * (1 - two)))
    together = np.clip(np.where(np.isfinite(together), together, np.where(one * two > 0, -1.0, 0.0)), -1.0, 0.0)

    def reach(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        b = weight * b
        return np.sqrt(np.maximum(a**2 + b**2 - 2 * together * a * b, 0.0))

    middle = one - weight * two
    return middle - reach(one - one_low, two_high - two), middle + reach(one_high - one, two - two_low)


def ratio_ends(
    first: int, first_total: int, second: int, second_total: int, level: float = LEVEL
) -> tuple[float, float, float]:
    """(first / first_total) / (second / second_total) and its interval, of two independent groups of patients.

    Method of variance estimates recovery for ratios (Donner and Zou 2012), from the exact interval of each proportion.
    The upper end is infinite if the second proportion may be 0; the ratio is NaN if both proportions are 0.
    """
    one, two = first / first_total, second / second_total
    (one_low, one_high), (two_low, two_high) = (
        (float(low), float(high))
        for low, high in (
            exact_ends(np.array(first), first_total, level),
            exact_ends(np.array(second), second_total, level),
        )
    )
    both = one * two
    least, most = one_low * (2 * one - one_low), two_high * (2 * two - two_high)
    root = both + np.sqrt(max(both**2 - least * most, 0.0))
    low = float(least / root) if root > 0 else 0.0
    least, most = one_high * (2 * one - one_high), two_low * (2 * two - two_low)
    high = float((both + np.sqrt(max(both**2 - least * most, 0.0))) / most) if most > 0 else float("inf")
    value = one / two if two > 0 else float("nan") if one == 0 else float("inf")
    return value, low, high
