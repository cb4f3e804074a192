"""Interleaved timing: each round runs all contenders, so that drift of the machine affects all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from stageproof.benchmarks.compare.statistics import interval_of_times
from stageproof.train.terminal.bars import bar


@dataclass(frozen=True)
class Measured:
    """The raw samples of one contender."""

    name: str
    milliseconds: np.ndarray
    """(rounds,) float64; sample i of every contender was measured in the same round with the same task."""

    @property
    def median(self) -> float:
        """Median time in milliseconds."""
        return float(np.median(self.milliseconds))

    def interval(self) -> tuple[float, float]:
        """95 % confidence interval of the median in milliseconds, valid for autocorrelated samples."""
        return interval_of_times(self.milliseconds)

    def ratio(self, other: Measured) -> tuple[float, float, float]:
        """(speed-up over `other`, lower bound, upper bound): median of the paired ratios and its 95 % interval."""
        ratios = other.milliseconds / self.milliseconds
        return (float(np.median(ratios)), *interval_of_times(ratios))


def time_interleaved(
    contenders: Mapping[str, Callable[[Any], object]],
    task: Callable[[int], Any],
    rounds: int,
    warm_up: int,
    what: str = "timing",
) -> list[Measured]:
    """The samples of each contender. Round i calls each contender with `task(i)`; the order rotates by one each round.

    The first `warm_up` rounds have negative numbers and are not recorded. what: description of the progress bar.
    """
    names = list(contenders)
    samples = np.empty((len(names), rounds))
    with bar(what, (warm_up + rounds) * len(names)) as advance:
        for turn in range(-warm_up, rounds):
            argument = task(turn)
            for shift in range(len(names)):
                position = (shift + turn) % len(names)
                start = time.perf_counter()
                contenders[names[position]](argument)
                if turn >= 0:
                    samples[position, turn] = (time.perf_counter() - start) * 1e3
                advance()
    return [Measured(name, samples[position]) for position, name in enumerate(names)]
