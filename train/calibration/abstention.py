"""Abstention thresholds with a guarantee on the risk (selective classification), by Learn then Test over patients.

Guarantee: with probability `CONFIDENCE` over the patients used for certification, the error rate of the predictions
that are not abstained from is at most the target risk for new patients of the same population. Patients must be a
random sample; slices of one patient may depend on each other in any way.

Null hypothesis of a threshold: its risk exceeds the target. The threshold is certified if that is rejected. Thresholds
are tested in fixed sequences (Angelopoulos et al. 2021, "Learn then Test"), from high to low. The risk need not be
monotone in the threshold, so each sequence ends at the first hypothesis that is not rejected. Whatever is fitted to
labels (temperature, study rule) must be fitted on other patients: `split_patients`.

Studies: given a threshold at a rank of the confidences, the predictions above it are a random sample of all predictions
above it, so the number of errors is exactly binomial (same bound as Geifman and El-Yaniv 2017). Slices: the loss of a
patient is the mean over the slices of answered × (wrong − target); the hypothesis that its expectation is positive is
tested by betting (Waudby-Smith and Ramdas 2024), which is valid for any distribution.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np

CONFIDENCE = 0.95
FEWEST_FITTED = 10
"""Minimum number of patients for fitting temperature and study rule; a quarter of all patients if that is more."""
_SEQUENCES = 3
_BETS = np.array([0.999, 0.7, 0.45, 0.25, 0.12, 0.05])
_STAKES = np.array([0.5, 0.1, 0.1, 0.1, 0.1, 0.1])
_STEPS = 20
_MOST = 10_000


@dataclass(frozen=True)
class Certified:
    """Result of the certification for slices or for studies."""

    threshold: float | None
    """Smallest certified confidence threshold, 0 if no abstention is needed; None if nothing can be certified."""
    patients: int
    """Number of patients used in the test."""
    needed: int | None
    """Number of held-out patients needed in total, at the observed error rate (an estimate, unless there are no
    errors); None if no number is enough, because even the most confident predictions are wrong too often."""
    why: str = ""
    """Reason why nothing was certified."""


def split_patients(stage: np.ndarray, seed: int = 0) -> np.ndarray:
    """(patients,) bool, stratified by class: True for patients to fit on, False for patients to certify on.

    stage: (patients,) int64.
    """
    count, chosen = number_fitted_on(len(stage)), np.zeros(len(stage), bool)
    drawn = np.random.default_rng(seed).permutation(len(stage))
    order = drawn[np.argsort(stage[drawn], kind="stable")]
    chosen[order[(np.arange(count) * len(stage)) // max(count, 1)]] = True
    return chosen


def number_fitted_on(patients: int) -> int:
    """Number of held-out patients used for fitting if thresholds are certified on the others."""
    return min(patients, max(FEWEST_FITTED, patients // 4))


def held_out_for(certified: int) -> int:
    """Number of held-out patients needed such that `certified` of them remain for certification."""
    total = certified + FEWEST_FITTED
    return total if number_fitted_on(total) == FEWEST_FITTED else math.ceil(4 * certified / 3)


def fewest_answered(risk: float, confidence: float = CONFIDENCE) -> int:
    """Minimum number of patients to certify a risk for studies without any error: 29 for 10 %, 14 for 20 %."""
    return math.ceil(math.log(1 - confidence) / math.log1p(-risk) - 1e-9)


@cache
def fewest_for_slices(risk: float, confidence: float = CONFIDENCE) -> int:
    """Minimum number of patients to certify a risk for slices without any error: 34 for 10 %, 16 for 20 %."""
    count = fewest_answered(risk, confidence)
    while _wealth(np.full((count, 1), -risk), risk)[0] < math.log(1 / (1 - confidence)):
        count += 1
    return count


def certify_studies(confidence: np.ndarray, wrong: np.ndarray, risk: float) -> Certified:
    """The smallest certified threshold for studies. confidence: (patients,) float64. wrong: (patients,) bool."""
    order = np.argsort(-confidence, kind="stable")
    sorted_confidence, errors = confidence[order], np.concatenate([[0], np.cumsum(wrong[order])])
    count, least = len(order), fewest_answered(risk)
    sequences, level = _sequences(count, least)
    best: float | None = None
    most = 0
    for start in sequences:
        for rank in _ranks(count, risk, level, start):
            # Predictions above the next confidence are answered; fewer than `rank` if there are ties.
            bar = sorted_confidence[rank] if rank < count else -math.inf
            answered = int((sorted_confidence > bar).sum())
            if binomial_p(int(errors[answered]), answered, risk) > level:
                break
            if answered > most:
                most, best = answered, 0.0 if rank == count else _above(float(bar))
    if best is not None:
        return Certified(best, count, None)
    counts = [(float(errors[rank]), float(rank)) for rank in range(1, count + 1) if rank >= min(least, count)]
    return _not_certified(counts, count, risk, least, "studies")


def certify_slices(
    confidence: np.ndarray, wrong: np.ndarray, patients: np.ndarray, risk: float, others: np.ndarray
) -> Certified:
    """The smallest certified threshold for slices.

    confidence: (N,) float64. wrong: (N,) bool. patients: (N,) int64 from 0, without gaps.
    others: (M,) float64 confidences of slices of other patients, which determine the thresholds to test.
    """
    count, least = int(patients.max()) + 1, fewest_for_slices(risk)
    thresholds, shares = _candidates(others)
    answered = confidence[:, None] >= thresholds  # (N, thresholds)
    slices = np.bincount(patients)[:, None]
    total = np.zeros((2, count, len(thresholds)))
    np.add.at(total[0], patients, answered)
    np.add.at(total[1], patients, answered & wrong[:, None])
    # Each slice has the same weight, so shares are relative to the largest number of slices of a patient.
    share, errors = total / slices.max()
    wealth = _wealth(errors - risk * share, risk)
    starts, level = _sequences(count, least)
    best = None
    for start in starts:
        for at in range(int(np.argmax(shares * count >= start - 1e-9)), len(thresholds)):
            if wealth[at] < math.log(1 / level):
                break
            best = at if best is None else max(best, at)
    if best is not None:
        return Certified(float(thresholds[best]), count, None)
    pairs = zip(errors.sum(0), share.sum(0), strict=True)  # unit: patients with all slices answered
    return _not_certified([(wrongly, given) for wrongly, given in pairs if given > 0], count, risk, least, "slices")


def _candidates(confidence: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Thresholds to test, from the highest to 0, and the share of `confidence` ((N,) float64) at or above each.

    `confidence` is from other patients than the tests, so that no hypothesis depends on the data that tests it.
    """
    steps = np.minimum(np.quantile(confidence, np.arange(1, _STEPS) / _STEPS), np.nextafter(1.0, 0.0))
    thresholds = np.unique(np.append(steps, 0.0))[::-1]
    return thresholds, (confidence[:, None] >= thresholds).mean(0)


def binomial_p(wrong: int, answered: int, risk: float) -> float:
    """p-value of the hypothesis that the risk exceeds `risk`: probability of at most `wrong` errors at this risk."""
    from scipy.stats import binom

    return float(binom.cdf(wrong, answered, risk)) if answered else 1.0


def _sequences(patients: int, least: int) -> tuple[list[int], float]:
    """Start of each test sequence, as a number of answered patients, and the significance level of each.

    The number of sequences depends on the number of patients only, not on the errors.
    """
    number = min(_SEQUENCES, max(1, patients // (2 * least) + 1)) if patients >= least else 1
    starts = [least + (patients - least) * at // number for at in range(number)]
    return starts, (1 - CONFIDENCE) / number


def _ranks(count: int, risk: float, level: float, start: int) -> list[int]:
    """Ranks to test, from `start` on: for each number of errors the smallest rank that allows it; last all patients."""
    from scipy.stats import binom

    ranks = np.arange(1, count + 1)
    allowed = binom.ppf(level, ranks, risk).astype(np.int64)  # smallest number of errors with p-value >= level
    allowed = np.where(binom.cdf(allowed, ranks, risk) > level, allowed - 1, allowed)
    first = np.flatnonzero(np.diff(allowed, prepend=-1) > 0)
    found = [int(ranks[at]) for at in first if ranks[at] >= start]
    return found if found and found[-1] == count else [*found, count]


def _above(value: float) -> float:
    """The next float: predictions above `value` are answered, and a threshold is inclusive."""
    return float(min(np.nextafter(value, 1.0), np.nextafter(1.0, 0.0)))


def _wealth(losses: np.ndarray, risk: float) -> np.ndarray:
    """(thresholds,) log of the e-value against the hypothesis that the mean loss is at least 0, a mixture of bets.

    losses: (patients, thresholds) float64 in [-risk, 1 - risk].
    """
    bets = _BETS / (1 - risk)
    logs = np.log1p(-bets[:, None, None] * losses).sum(1) + np.log(_STAKES)[:, None]
    top = logs.max(0)
    return top + np.log(np.exp(logs - top).sum(0))


def _not_certified(counts: list[tuple[float, float]], patients: int, risk: float, least: int, what: str) -> Certified:
    """The result if nothing is certified. counts: (wrong, answered), in patients, at each candidate threshold."""
    if patients < least:
        total = held_out_for(least)
        return Certified(
            None, patients, total, f"at least {least} patients without an error are needed, and there are {patients}"
        )
    rate, given = min(((wrong / answered, answered) for wrong, answered in counts if answered >= 1), default=(1.0, 1.0))
    if rate >= risk:
        return Certified(None, patients, None, f"{rate:.0%} of its most confident {what} are wrong")
    needed = float(least)
    while binomial_p(math.ceil(rate * needed), int(needed), risk) > (1 - CONFIDENCE) / _SEQUENCES and needed < _MOST:
        needed *= 1.05
    total = held_out_for(math.ceil(max(needed * patients / given, patients + 1)))
    why = f"{rate:.1%} of its most confident {what} are wrong"
    return Certified(None, patients, total if total < _MOST else None, why)
