"""Is there a level of likeness that parts patients: a gap among links, and a parting that is even."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from train.data.linking import Links, components, joined

CHANCE = 0.01
"""Patients are told apart where both tests together leave less than this to chance."""
SAME = 1 - 1e-6
"""Correlation of identical pictures, but for rounding."""
_FEWEST, _AROUND = 5, 32  # links on either side that say what spacing is usual there, and what part of all at most
_DRAWN = 199


@dataclass(frozen=True)
class Gap:
    """A place among the links where none lies."""

    below: float
    """Likeness of the most alike pair below it."""
    above: float
    """Likeness of the least alike pair above it."""
    strength: float
    """Its width, in mean spacings of the links around it."""
    chance: float
    """At most how probable one as clear is where links spread at random, in [0, 1]."""


def gaps(likeness: np.ndarray) -> list[Gap]:
    """The gaps among links that might be clear, the least probable first.

    Each chance is that of any gap as clear: there are as many places to look as links would fit, at the spacing that is
    usual there, into the range that 98 % of them take, on Fisher's z. likeness: (K,) ascending, less than 1.
    """
    z = np.arctanh(np.clip(likeness.astype(np.float64), -1 + 1e-7, 1 - 1e-7))
    last = len(z) - 1
    if last < 2 * _FEWEST + 1:
        return []
    place = np.arange(_FEWEST, last - _FEWEST)
    width = z[place + 1] - z[place]
    around = max(_AROUND, len(z) // 50)
    before, after = np.minimum(place, around), np.minimum(last - place - 1, around)
    below = np.maximum((z[place] - z[place - before]) / before, 1e-9)
    above = np.maximum((z[place + 1 + after] - z[place + 1]) / after, 1e-9)
    # Spacings of points thrown at random are exponential, so that their ratio to a mean of k of them has this tail.
    tail = np.minimum(before * np.log1p(width / (before * below)), after * np.log1p(width / (after * above)))
    usual = np.maximum(below, above)
    chance = np.exp(-tail) * np.maximum((np.quantile(z, 0.99) - np.quantile(z, 0.01)) / usual, 1)
    wide = np.flatnonzero(chance < 1)
    order = wide[np.argsort(chance[wide], kind="stable")]
    return [
        Gap(float(likeness[place[at]]), float(likeness[place[at] + 1]), float(width[at] / usual[at]), float(chance[at]))
        for at in order
    ]


def part(count: int, tree: Links) -> tuple[Gap | None, np.ndarray | None]:
    """The gap that parts patients and, (count,) int64 from 0, who is who; or the clearest gap, and None.

    tree: count - 1 links that hold all slices together.
    """
    varied = tree.select(tree.likeness < SAME)
    same = tree.select(tree.likeness >= SAME)
    found = gaps(np.sort(varied.likeness))
    for gap in found:
        if _both(gap.chance, 1 / (1 + _DRAWN)) >= CHANCE:
            break
        groups = components(count, tree.select(tree.likeness > gap.below))
        if _like_patients(groups):
            chance = _both(gap.chance, _as_even_by_chance(groups, varied, same))
            if chance < CHANCE:
                return replace(gap, chance=chance), groups
    return next(iter(found), None), None


def _like_patients(groups: np.ndarray) -> bool:
    """Whether no group holds more than half of the slices, and no more than a quarter of the slices are alone.

    groups: (N,) int64 from 0.
    """
    sizes = np.bincount(groups)
    return bool(2 * sizes.max() <= len(groups) and 4 * (sizes == 1).sum() <= len(groups))


def _as_even_by_chance(groups: np.ndarray, varied: Links, same: Links) -> float:
    """Chance that as many of the varied links, drawn at random and cut, part the slices as evenly; at least 0.005.

    Where a level of likeness means nothing, the links below it are those of outliers, and one large group is left.
    Evenness is how rarely two slices are of one group.

    groups: (N,) int64 from 0.
    """
    count, cut = len(groups), int(groups.max())
    drawn = np.random.default_rng(0)
    together, as_even = _together(groups), 0
    for _ in range(_DRAWN):
        kept = varied.select(np.sort(drawn.permutation(len(varied))[cut:]))
        as_even += _together(components(count, joined(kept, same))) <= together
    return (1 + as_even) / (1 + _DRAWN)


def _together(groups: np.ndarray) -> float:
    """Chance that two slices are of one group."""
    return float(((np.bincount(groups) / len(groups)) ** 2).sum())


def _both(first: float, second: float) -> float:
    """Chance that two independent tests have chances of so small a product (Fisher 1925)."""
    product = first * second
    return product * (1 - math.log(product)) if product > 0 else 0.0
