"""Upper confidence bounds on a proportion of images when images of one patient are correlated.

32 slices of one patient are not 32 independent trials: if one prediction changes, those of neighbouring slices tend to
change too. Two bounds are computed, and the larger one is used.

- Korn and Graubard (1998, Survey Methodology 24:193): the Clopper-Pearson bound for the effective sample size, the
  number of images divided by the estimated design effect. With few changed predictions the design effect is poorly
  estimated, and underestimated just when the proportion is too.
- Beta-binomial: the proportion at which so few changes become unlikely, if the probability of a change varies between
  patients. Its intraclass correlation (ICC), in [0, `LARGEST_ICC`], is the maximum-likelihood value at that proportion,
  given the changes per patient. Without any change this is nearly always the largest value.

`docs/GATE.md` describes the simulation of both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from stageproof.export.statistics.binomial import upper_bound

LARGEST_ICC = 0.3
"""Largest ICC of changes within a patient. Measured values of real int8 artifacts are 0.003 to 0.047."""
SLICES_OF_UNKNOWN = 32
"""Images assumed per patient if patients are unknown: the number per patient in the public data sets."""
_GRID = tuple(float(icc) for icc in np.linspace(0.0, LARGEST_ICC, 13))
_FIRST = 1e-6  # where the search for a bound begins
_STEPS = 40


@dataclass(frozen=True)
class Counts:
    """Number of images and of changed images of each patient."""

    changed: np.ndarray
    """(P,) int, changed images of each patient; if `known` is False, only the sum is meaningful."""
    sizes: np.ndarray
    """(P,) int, images of each patient, 1 or more."""
    known: bool = True
    """False: patients are unknown, and `sizes` assumes `SLICES_OF_UNKNOWN` images of each."""

    @property
    def images(self) -> int:
        """Total number of images."""
        return int(self.sizes.sum())

    @property
    def total(self) -> int:
        """Total number of changed images."""
        return int(self.changed.sum())

    @property
    def people(self) -> int:
        """Number of patients; an assumed number if unknown."""
        return len(self.sizes)

    @classmethod
    def of(cls, changed: np.ndarray, people: np.ndarray | None) -> Counts:
        """The counts. changed: (N,) bool. people: (N,) int, patient of each image; None if unknown."""
        if people is None:
            sizes = _assumed_sizes(len(changed))
            counts = np.zeros(len(sizes), np.int64)
            counts[:1] = int(changed.sum())
            return cls(counts, sizes, known=False)
        _, index = np.unique(people, return_inverse=True)
        return cls(np.bincount(index, weights=changed).astype(np.int64), np.bincount(index))


def _assumed_sizes(images: int) -> np.ndarray:
    full, rest = divmod(images, SLICES_OF_UNKNOWN)
    return np.array([SLICES_OF_UNKNOWN] * full + [rest] * (rest > 0), np.int64)


def design_effect(counts: Counts) -> float | None:
    """Design effect (Kish 1965): variance of the proportion, estimated between patients, relative to that of as many
    independent images. None if it cannot be estimated: patients unknown, fewer than two, or no or all images changed.
    """
    people, images, total = counts.people, counts.images, counts.total
    if not counts.known or people < 2 or images < 2 or not 0 < total < images:
        return None
    share = total / images
    residuals = counts.changed - share * counts.sizes
    variance = people / (people - 1) * float((residuals**2).sum()) / images**2
    return variance / (share * (1 - share) / (images - 1))


def korn_graubard(counts: Counts, confidence: float = 0.95) -> float:
    """Upper one-sided bound on the proportion, in [0, 1]: Clopper-Pearson bound for the effective sample size.

    The design effect is at least 1, and 1 if it cannot be estimated.
    """
    if counts.total >= counts.images or counts.people < 2:
        return 1.0
    effect = max(design_effect(counts) or 1.0, 1.0)
    effective = counts.images / effect * _t_ratio(confidence, counts.images, counts.people)
    return upper_bound(effective * counts.total / counts.images, effective, confidence)


def probability_of_so_few(counts: Counts, share: float) -> float:
    """Probability of at most the observed number of changes if the true proportion is `share`, in (0, 1): its p-value.

    The ICC is the maximum-likelihood value of a grid; if patients are unknown, the value with the largest probability.
    """
    sizes = _key(counts.sizes)
    if not counts.known:
        return max(_probability_of_total(sizes, counts.total, share, icc) for icc in _GRID)
    return _probability_of_total(sizes, counts.total, share, _most_probable_icc(counts, share))


def beta_binomial_bound(counts: Counts, confidence: float = 0.95) -> float:
    """Upper one-sided bound on the proportion, in [0, 1]: the largest one with a p-value above 1 - confidence."""
    if counts.total >= counts.images:
        return 1.0
    low, high = max(counts.total / counts.images, _FIRST), 1 - _FIRST
    if probability_of_so_few(counts, high) > 1 - confidence:
        return 1.0
    for _ in range(_STEPS):
        middle = math.sqrt(low * high)
        if probability_of_so_few(counts, middle) > 1 - confidence:
            low = middle
        else:
            high = middle
        if high / low < 1.0005:
            break
    return high


def bound(counts: Counts, confidence: float = 0.95) -> float:
    """Upper one-sided bound on the proportion of changed images, in [0, 1]; 1 for no images.

    Not below the bound for independent images (`export.statistics.binomial.upper_bound`).
    """
    if not counts.images:
        return 1.0
    independent = _independent(counts, confidence)
    if int(counts.sizes.max()) == 1:
        return independent  # one image per patient
    if counts.known:
        independent = max(independent, korn_graubard(counts, confidence))
    return max(independent, beta_binomial_bound(counts, confidence))


def within(counts: Counts, share: float, confidence: float = 0.95) -> bool:
    """Whether `bound` is at most `share`; faster than computing `bound`."""
    if not counts.images or counts.total >= share * counts.images:
        return False
    # The Korn-Graubard bound is never below the bound for independent images.
    first = (korn_graubard if counts.known else _independent)(counts, confidence)
    return first <= share and probability_of_so_few(counts, share) <= 1 - confidence


def _independent(counts: Counts, confidence: float) -> float:
    return upper_bound(counts.total, counts.images, confidence)


def minimum_patients(share: float, slices: int, confidence: float = 0.95) -> int:
    """Smallest number of patients with `slices` images each for which the bound without changes is within `share`,
    in (0, 1)."""
    none = max(float(_log_terms(slices, share, icc)[0]) for icc in (0.0, LARGEST_ICC))  # log probability of no change
    return max(2, math.ceil(math.log(1 - confidence) / none))


@lru_cache(maxsize=4096)
def _log_terms(slices: int, share: float, icc: float) -> np.ndarray:
    """(slices + 1,) log beta-binomial probability of each number of changes of one patient."""
    from scipy.special import betaln, gammaln

    at = np.arange(slices + 1)
    ways = gammaln(slices + 1) - gammaln(at + 1) - gammaln(slices - at + 1)
    if icc == 0:
        return ways + at * math.log(share) + (slices - at) * math.log1p(-share)
    both = (1 - icc) / icc
    first, second = share * both, (1 - share) * both
    return ways + betaln(at + first, slices - at + second) - betaln(first, second)


def _key(sizes: np.ndarray) -> tuple[tuple[int, int], ...]:
    """((images per patient, number of such patients), …), hashable."""
    each, people = np.unique(sizes, return_counts=True)
    return tuple(zip(each.tolist(), people.tolist(), strict=True))


def _probability_of_total(sizes: tuple[tuple[int, int], ...], total: int, share: float, icc: float) -> float:
    """Probability of at most `total` changes of all patients together."""
    return float(min(1.0, _cumulative(sizes, share, icc)[total]))


@lru_cache(maxsize=64)
def _cumulative(sizes: tuple[tuple[int, int], ...], share: float, icc: float) -> np.ndarray:
    """(images + 1,) cumulative probability of the total number of changes, by convolution over patients."""
    length = sum(size * people for size, people in sizes) + 1
    transformed = np.ones(length // 2 + 1, np.complex128)
    for size, people in sizes:
        transformed *= np.fft.rfft(np.exp(_log_terms(size, share, icc)), length) ** people
    return np.cumsum(np.maximum(np.fft.irfft(transformed, length), 0.0))


def _most_probable_icc(counts: Counts, share: float) -> float:
    """Maximum-likelihood ICC among `_GRID`, given the changes of each patient."""
    width = int(counts.sizes.max()) + 1
    pairs, people = np.unique(counts.sizes * width + counts.changed, return_counts=True)
    each = [divmod(pair, width) for pair in pairs.tolist()]
    fits = [float(np.dot([_log_terms(size, share, icc)[at] for size, at in each], people)) for icc in _GRID]
    return _GRID[int(np.argmax(fits))]


@lru_cache(maxsize=1024)
def _t_ratio(confidence: float, images: int, people: int) -> float:
    """Squared ratio of Student's t quantiles with images - 1 and with people - 1 degrees of freedom."""
    from scipy.stats import t

    return float((t.ppf(confidence, images - 1) / t.ppf(confidence, people - 1)) ** 2)
