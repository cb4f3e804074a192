"""`mean_of_folds`: mean of a metric over folds, with an interval that includes the variance of the training.

The metrics of different folds are not independent: the test patients of one fold are training patients of the others.
If nothing can be learned, each pair of patients in two folds counts twice, once in each direction, so the variance of
the mean over K folds is twice that of K independent test sets (Bates, Hastie and Tibshirani 2024; Nadeau and Bengio
2003 give 1 + K / (K - 1)). Repeats with other folds add pairs that one split does not have: see `correlated`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from stageproof.train.metrics.intervals import LEVEL, exact, leave_one_out

DEPENDENCE = 2.0
"""Variance of a metric over all folds, divided by that for independent patients: for ranking metrics; the maximum."""
DECIDED = 1 + 2 / math.pi
"""The same for predicted classes of patients: signs of two normal scores correlate less than the scores, by 2 / π."""


def correlated(folds: int, repeats: int = 1, dependence: float = DEPENDENCE) -> float:
    """Variance of the mean over all folds, divided by the variance of the metric of one fold.

    With a dependence of 2, it is 2 / K for one split into K folds. One split has a share (K - 1) / K of all pairs of
    patients in different folds; R splits have more of them, so the factor is 2 / K * ((K - 1) / K + 1 / (K R)).
    """
    return dependence / folds * ((folds - 1) / folds + 1 / (folds * repeats))


def fold_figures(
    scores: Callable[[np.ndarray], Mapping[str, np.ndarray]], names: Iterable[str], patients: int
) -> dict[str, tuple[float, float]]:
    """Name → metric of one fold and its variance over patients by the delete-one jackknife (NaN if undefined).

    scores: computes name → (B,) metrics from (B, patients) weights.
    """
    found = scores(leave_one_out(patients))
    return {name: _with_variance(found[name]) for name in names}


def _with_variance(values: np.ndarray) -> tuple[float, float]:
    left = values[1:][np.isfinite(values[1:])]
    if not np.isfinite(values[0]) or len(left) < 2:
        return float(values[0]), math.nan
    return float(values[0]), float((len(left) - 1) / len(left) * ((left - left.mean()) ** 2).sum())


def mean_of_folds(
    values: Sequence[float],
    variances: Sequence[float],
    patients: int,
    *,
    repeats: int = 1,
    least: float = 0.0,
    dependence: float = DEPENDENCE,
) -> dict[str, Any]:
    """The mean over folds with a 95 % interval: {value, sd, folds, low, high}, and `why` if there is no interval.

    values, variances: for each fold of each repeat, NaN if undefined. If the variance between folds is significantly
    larger (5 %) than explained by their patients, the difference is added as variance of the training.
    patients: number of test patients in one repeat. least: minimum of the metric (-1 for kappa); the maximum is 1.
    dependence: `DEPENDENCE`, or `DECIDED` for predicted classes of patients.
    """
    found, spread = np.asarray(values, float), np.asarray(variances, float)
    defined = np.isfinite(found)
    count = int(defined.sum())
    none = {"value": None, "sd": None, "folds": count, "low": None, "high": None}
    if not count:
        return {**none, "why": "not estimable: undefined in all folds"}
    value = float(found[defined].mean())
    by_repeat = [part[np.isfinite(part)] for part in found.reshape(repeats, -1)]
    between = [float(part.var(ddof=1)) for part in by_repeat if len(part) > 1]
    facts = {**none, "value": value, "sd": math.sqrt(np.mean(between)) if between else None}
    folds = len(found) // repeats
    if count < len(found) / 2 or count < 2 or not np.isfinite(spread[defined]).any():
        return {**facts, "why": "interval not estimable: defined in too few folds"}
    share, factor = (value - least) / (1 - least), correlated(folds, repeats, dependence)
    over_patients = float(np.nanmean(spread[defined]))
    variance = factor * over_patients
    if between:
        degrees = sum(len(part) - 1 for part in by_repeat if len(part) > 1)
        shared = (dependence - 1) / (folds - 1)  # covariance of two folds, divided by the variance of one
        variance += _of_training(float(np.mean(between)), over_patients, shared, degrees) / (folds * repeats)
    if share in (0.0, 1.0):
        effective = patients / (folds * factor)
        low, high = exact(share * effective, effective)
    elif variance > 0:
        low, high = _logit_interval(share, math.sqrt(variance) / (1 - least), patients)
    else:
        return {**facts, "why": "interval not estimable: all folds have the same value"}
    return {**facts, "low": least + (1 - least) * low, "high": least + (1 - least) * high}


def _of_training(between: float, over_patients: float, shared: float, degrees: int) -> float:
    """Variance between folds that is not explained by their patients; 0 if not significant.

    Because folds share training patients, their metrics differ less than those of independent test sets.
    """
    from scipy import special

    expected = over_patients * (1 - shared if shared < 1 else 1)
    chance = float(special.chdtri(degrees, 1 - LEVEL)) / degrees
    return between - expected if between > chance * expected else 0.0


def _logit_interval(share: float, error: float, patients: int) -> tuple[float, float]:
    """Interval of a share in (0, 1) with this standard error, symmetric on the logit scale."""
    from scipy import special

    half = float(special.stdtrit(max(patients - 2, 1), (1 + LEVEL) / 2)) * error / (share * (1 - share))
    middle = float(special.logit(share))
    return float(special.expit(middle - half)), float(special.expit(middle + half))
