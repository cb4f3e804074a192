"""Thresholds below which the model abstains, with a guarantee on what it answers: Learn then Test over patients.

The guarantee: with probability `CONFIDENCE` over the patients that a threshold is certified on, the share of wrong
answers among those given, for new patients like them, is at most the target. The patients are a random sample; their
slices may repeat one another in any way.

A threshold is tested by the hypothesis that its risk exceeds the target, and certified where that is rejected. The
thresholds are tested in fixed sequences (Angelopoulos et al. 2021, "Learn then Test"), the surest answers first. The
share of wrong answers need not fall with the threshold, so each sequence ends at the first hypothesis that stays. What
is fitted to labels (temperature, rule for studies) must come from other patients: `split_patients`.

Studies: the answers above a threshold at a rank of the confidences are a random sample of all answers above it, so the
number wrong is binomial, exactly (Geifman and El-Yaniv 2017 bound it in the same way). Slices: each patient counts
once, with the mean over the slices of answered × (wrong − target); a mixture of bets against its mean being positive
(Waudby-Smith and Ramdas 2024) gives a test for any distribution.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np

CONFIDENCE = 0.95
FEWEST_FITTED = 10
"""Patients that temperature and rule for studies are fitted on, at the least; a quarter where there are more."""
_SEQUENCES = 3
_BETS = np.array([0.999, 0.7, 0.45, 0.25, 0.12, 0.05])
_STAKES = np.array([0.5, 0.1, 0.1, 0.1, 0.1, 0.1])
_STEPS = 20
_MOST = 10_000


@dataclass(frozen=True)
class Certified:
    """The outcome for one kind of answer."""

    threshold: float | None
    """Least probability to answer from, 0 where everything may be; None where nothing can be certified."""
    patients: int
    """That the test rested on."""
    needed: int | None
    """Patients that would have to be held out in all, at the rate of errors seen here; None where no number of them
    would do, since the model is wrong too often even where it is surest. Only an estimate unless nothing was wrong."""
    why: str = ""
    """Why nothing was certified."""


def split_patients(stage: np.ndarray, seed: int = 0) -> np.ndarray:
    """(patients,) bool: those to fit on; the others are to certify on. The classes are shared evenly.

    stage: (patients,) int64.
    """
    count, chosen = fitted_on(len(stage)), np.zeros(len(stage), bool)
    drawn = np.random.default_rng(seed).permutation(len(stage))
    order = drawn[np.argsort(stage[drawn], kind="stable")]
    chosen[order[(np.arange(count) * len(stage)) // max(count, 1)]] = True
    return chosen


def fitted_on(patients: int) -> int:
    """How many of the patients held out are fitted on where a threshold is to be certified on the others."""
    return min(patients, max(FEWEST_FITTED, patients // 4))


def held_out_for(certified: int) -> int:
    """How many patients must be held out so that `certified` are left to certify on."""
    total = certified + FEWEST_FITTED
    return total if fitted_on(total) == FEWEST_FITTED else math.ceil(4 * certified / 3)


def fewest_answered(risk: float, confidence: float = CONFIDENCE) -> int:
    """Answered patients, none of them wrong, that a risk can be certified with: 29 for 10 %, 14 for 20 %."""
    return math.ceil(math.log(1 - confidence) / math.log1p(-risk) - 1e-9)


@cache
def fewest_for_slices(risk: float, confidence: float = CONFIDENCE) -> int:
    """The same for slices, all answered and none wrong: 34 for 10 %, 16 for 20 %."""
    count = fewest_answered(risk, confidence)
    while _wealth(np.full((count, 1), -risk), risk)[0] < math.log(1 / (1 - confidence)):
        count += 1
    return count


def certify_studies(confidence: np.ndarray, wrong: np.ndarray, risk: float) -> Certified:
    """The least threshold whose risk is certified. One entry a patient: (patients,) float64, (patients,) bool."""
    order = np.argsort(-confidence, kind="stable")
    sorted_confidence, errors = confidence[order], np.concatenate([[0], np.cumsum(wrong[order])])
    count, least = len(order), fewest_answered(risk)
    sequences, level = _sequences(count, least)
    best: float | None = None
    most = 0
    for start in sequences:
        for rank in _ranks(count, risk, level, start):
            # Everything above the next confidence is answered; where that is tied, so much less.
            bar = sorted_confidence[rank] if rank < count else -math.inf
            answered = int((sorted_confidence > bar).sum())
            if binomial_p(int(errors[answered]), answered, risk) > level:
                break
            if answered > most:
                most, best = answered, 0.0 if rank == count else _above(float(bar))
    if best is not None:
        return Certified(best, count, None)
    counts = [(float(errors[rank]), float(rank)) for rank in range(1, count + 1) if rank >= min(least, count)]
    return _refused(counts, count, risk, least, "studies")


def certify_slices(
    confidence: np.ndarray, wrong: np.ndarray, patients: np.ndarray, risk: float, others: np.ndarray
) -> Certified:
    """The least threshold whose risk is certified, for slices of any number of patients.

    confidence: (N,) float64. wrong: (N,) bool. patients: (N,) int64 from 0, each with a slice.
    others: (M,) float64 confidences of slices of other patients, from which the thresholds to test are taken.
    """
    count, least = int(patients.max()) + 1, fewest_for_slices(risk)
    thresholds, shares = _candidates(others)
    answered = confidence[:, None] >= thresholds  # (N, thresholds)
    slices = np.bincount(patients)[:, None]
    total = np.zeros((2, count, len(thresholds)))
    np.add.at(total[0], patients, answered)
    np.add.at(total[1], patients, answered & wrong[:, None])
    # The answers of a patient with many slices count as many, so shares are of the largest number of slices.
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
    pairs = zip(errors.sum(0), share.sum(0), strict=True)  # in patients answered with all their slices
    return _refused([(wrongly, given) for wrongly, given in pairs if given > 0], count, risk, least, "slices")


def _candidates(confidence: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Thresholds to test, the highest first and 0 last, and the share of `confidence` ((N,) float64) that each answers.

    From other patients than the test's: no hypothesis depends on what it is tested with.
    """
    steps = np.minimum(np.quantile(confidence, np.arange(1, _STEPS) / _STEPS), np.nextafter(1.0, 0.0))
    thresholds = np.unique(np.append(steps, 0.0))[::-1]
    return thresholds, (confidence[:, None] >= thresholds).mean(0)


def binomial_p(wrong: int, answered: int, risk: float) -> float:
    """Probability of so few wrong among those answered where the risk is `risk`."""
    from scipy.stats import binom

    return float(binom.cdf(wrong, answered, risk)) if answered else 1.0


def _sequences(patients: int, least: int) -> tuple[list[int], float]:
    """Where each sequence of tests starts, in patients answered, and the level at which each is tested.

    Their number follows from the number of patients alone, so that errors cannot influence it.
    """
    number = min(_SEQUENCES, max(1, patients // (2 * least) + 1)) if patients >= least else 1
    starts = [least + (patients - least) * at // number for at in range(number)]
    return starts, (1 - CONFIDENCE) / number


def _ranks(count: int, risk: float, level: float, start: int) -> list[int]:
    """Ranks to test: for each number of errors the fewest answered that allow it, from `start` on, then everything."""
    from scipy.stats import binom

    ranks = np.arange(1, count + 1)
    allowed = binom.ppf(level, ranks, risk).astype(np.int64)  # the least errors whose p-value reaches the level
    allowed = np.where(binom.cdf(allowed, ranks, risk) > level, allowed - 1, allowed)
    first = np.flatnonzero(np.diff(allowed, prepend=-1) > 0)
    found = [int(ranks[at]) for at in first if ranks[at] >= start]
    return found if found and found[-1] == count else [*found, count]


def _above(value: float) -> float:
    """The next float: what is answered is above `value`, and a threshold is answered from."""
    return float(min(np.nextafter(value, 1.0), np.nextafter(1.0, 0.0)))


def _wealth(losses: np.ndarray, risk: float) -> np.ndarray:
    """(thresholds,) log of the mixture of bets that the mean loss is below 0, an e-value where it is not.

    losses: (patients, thresholds) float64 in [-risk, 1 - risk].
    """
    bets = _BETS / (1 - risk)
    logs = np.log1p(-bets[:, None, None] * losses).sum(1) + np.log(_STAKES)[:, None]
    top = logs.max(0)
    found: np.ndarray = top + np.log(np.exp(logs - top).sum(0))
    return found


def _refused(counts: list[tuple[float, float]], patients: int, risk: float, least: int, what: str) -> Certified:
    """Nothing certified. counts: (wrong, answered), in patients, at each threshold that was looked at."""
    if patients < least:
        total = held_out_for(least)
        return Certified(
            None, patients, total, f"{least} patients answered without an error are needed, and there are {patients}"
        )
    rate, given = min(((wrong / answered, answered) for wrong, answered in counts if answered >= 1), default=(1.0, 1.0))
    if rate >= risk:
        return Certified(None, patients, None, f"{rate:.0%} of its {what} are wrong where it is surest")
    needed = float(least)
    while binomial_p(math.ceil(rate * needed), int(needed), risk) > (1 - CONFIDENCE) / _SEQUENCES and needed < _MOST:
        needed *= 1.05
    total = held_out_for(math.ceil(max(needed * patients / given, patients + 1)))
    return Certified(None, patients, total if total < _MOST else None, f"{rate:.1%} of its surest {what} are wrong")
