"""How time is taken: contenders in turn, round after round, so that a drifting machine drifts for all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from stageproof.benchmarks.compare.statistics import interval_of_times


@dataclass(frozen=True)
class Measured:
    """The raw samples of one contender."""

    name: str
    milliseconds: np.ndarray
    """(rounds,) float64; sample i of every contender was taken in the same round, on the same image."""

    @property
    def median(self) -> float:
        """Milliseconds."""
        return float(np.median(self.milliseconds))

    def interval(self) -> tuple[float, float]:
        """95 % interval of the median, milliseconds, of samples that may be correlated with their neighbours."""
        return interval_of_times(self.milliseconds)

    def ratio(self, other: Measured) -> tuple[float, float, float]:
        """How many times faster this is than `other`: median of the paired ratios, and its 95 % interval."""
        ratios = other.milliseconds / self.milliseconds
        return (float(np.median(ratios)), *interval_of_times(ratios))


def time_interleaved(
    contenders: Mapping[str, Callable[[Any], object]], task: Callable[[int], Any], rounds: int, warm_up: int
) -> list[Measured]:
    """One `Measured` for each contender. In round i each of them is given `task(i)`, whoever was second coming first.

    Rounds below zero, `warm_up` of them, are not counted.
    """
    names = list(contenders)
    samples = np.empty((len(names), rounds))
    for turn in range(-warm_up, rounds):
        given = task(turn)
        for shift in range(len(names)):
            position = (shift + turn) % len(names)
            start = time.perf_counter()
            contenders[names[position]](given)
            if turn >= 0:
                samples[position, turn] = (time.perf_counter() - start) * 1e3
    return [Measured(name, samples[position]) for position, name in enumerate(names)]
