"""Cross-validated figures: the mean over the folds, with an interval that includes the variance of the training.

The folds' figures are not independent: the patients tested in one fold train the networks of the others. Where nothing
can be learned, each pair of patients in two folds counts twice, once from either side, so the variance of the mean over
K folds is twice that of K independent test sets (Bates, Hastie and Tibshirani 2024; Nadeau and Bengio 2003 give
1 + K / (K - 1)). Repeats with other folds add pairs that one dealing leaves out: see `correlated`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from train.evaluation.bootstrap import LEVEL, exact_interval


def correlated(folds: int, repeats: int = 1) -> float:
    """Variance of the mean over all folds, by the variance of one fold's figure.

    2 / K for one dealing into K folds. Of all pairs of patients one dealing tests the share (K - 1) / K; R dealings
    come nearer to all of them, so the factor is 2 / K * ((K - 1) / K + 1 / (K R)).
    """
    return 2 / folds * ((folds - 1) / folds + 1 / (folds * repeats))


def jackknife(values: np.ndarray) -> tuple[float, float]:
    """A figure and its variance over patients. values: (1 + P,) float64, the figure, and it without each patient."""
    left = values[1:][np.isfinite(values[1:])]
    if not np.isfinite(values[0]) or len(left) < 2:
        return float(values[0]), math.nan
    return float(values[0]), float((len(left) - 1) / len(left) * ((left - left.mean()) ** 2).sum())


def delete_one(patients: int) -> np.ndarray:
    """(1 + P, P) float64 weights of the patients: all of them, then all but each."""
    return np.concatenate([np.ones((1, patients)), 1 - np.eye(patients)])


def mean_of_folds(
    values: Sequence[float], variances: Sequence[float], patients: int, *, repeats: int = 1, least: float = 0.0
) -> dict[str, Any]:
    """{value, sd, folds, low, high}, and `why` where there is no interval: the mean over folds, 95 % interval.

    values, variances: of each fold of each repeat in turn, NaN where not defined. The variance of a fold is the larger
    of that over patients and that seen between folds of one repeat: the second has that of the training too.
    patients: tested in one repeat. least: lowest value that the figure can have (-1 for kappa); the highest is 1.
    """
    found, spread = np.asarray(values, float), np.asarray(variances, float)
    defined = np.isfinite(found)
    count = int(defined.sum())
    none = {"value": None, "sd": None, "folds": count, "low": None, "high": None}
    if not count:
        return {**none, "why": "not estimable: defined in no fold"}
    value = float(found[defined].mean())
    by_repeat = [part[np.isfinite(part)] for part in found.reshape(repeats, -1)]
    between = [float(part.var(ddof=1)) for part in by_repeat if len(part) > 1]
    facts = {**none, "value": value, "sd": math.sqrt(np.mean(between)) if between else None}
    folds = len(found) // repeats
    if count < len(found) / 2 or count < 2 or not np.isfinite(spread[defined]).any():
        return {**facts, "why": "not estimable: defined in too few folds"}
    one = max(float(np.nanmean(spread[defined])), float(np.mean(between)) if between else 0.0)
    share = (value - least) / (1 - least)
    if one == 0 or not 0 < share < 1:
        low, high = exact_interval(share, patients) if share in (0.0, 1.0) else (math.nan, math.nan)
    else:
        low, high = _logit_interval(share, math.sqrt(one * correlated(folds, repeats)) / (1 - least), patients)
    if not math.isfinite(low):
        return {**facts, "why": "not estimable: all folds agree"}
    return {**facts, "low": least + (1 - least) * low, "high": least + (1 - least) * high}


def _logit_interval(share: float, error: float, patients: int) -> tuple[float, float]:
    """Interval of a share in (0, 1) of this standard error, symmetric on the logit scale."""
    from scipy import stats

    half = stats.t.ppf((1 + LEVEL) / 2, max(patients - 2, 1)) * error / (share * (1 - share))
    return tuple(float(1 / (1 + math.exp(-(math.log(share / (1 - share)) + side * half)))) for side in (-1, 1))  # type: ignore[return-value]


def fold_figures(
    scores: Callable[[np.ndarray], Mapping[str, np.ndarray]], names: Iterable[str], patients: int
) -> dict[str, tuple[float, float]]:
    """Name → figure of one fold and its variance over patients. scores: weights (B, patients) → name → (B,)."""
    found = scores(delete_one(patients))
    return {name: jackknife(found[name]) for name in names}


def widened(figure: dict[str, Any], least: float = 0.0) -> dict[str, Any]:
    """A pooled figure whose interval, of resamples of patients alone, is widened by the correlation of the folds.

    Both ends go away from the value by the square root of 2 on the logit scale; an end at a bound stays.
    """
    ends = [figure.get(name) for name in ("low", "value", "high")]
    if any(end is None for end in ends):
        return figure
    shares = [(float(end) - least) / (1 - least) for end in ends if end is not None]
    if not 0 < shares[1] < 1:
        return figure
    middle = math.log(shares[1] / (1 - shares[1]))
    out = []
    for share in (shares[0], shares[2]):
        if 0 < share < 1:
            moved = middle + math.sqrt(2) * (math.log(share / (1 - share)) - middle)
            share = 1 / (1 + math.exp(-moved))
        out.append(least + (1 - least) * share)
    return {**figure, "low": out[0], "high": out[1]}


def all_widened(facts: Any, name: str = "") -> Any:
    """The same figures, in whatever nesting, each `widened`."""
    if isinstance(facts, dict):
        if {"value", "low", "high"} <= set(facts):
            return widened(facts, -1.0 if name == "kappa" else 0.0)
        return {key: all_widened(value, key) for key, value in facts.items()}
    return facts
