"""A level of likeness counts when the gap is wide and the parting even; by chance that is rarer than either."""

from __future__ import annotations

import numpy as np
import pytest

from train.data.gap import CHANCE, gaps, part
from train.data.linking import Links

SMOOTH = {
    "normal": lambda rng, count: rng.normal(size=count),
    "uniform": lambda rng, count: rng.random(count),
    "long below": lambda rng, count: -rng.exponential(size=count),
    "long above": lambda rng, count: rng.exponential(size=count),
    "heavy tails": lambda rng, count: rng.standard_t(3, size=count),
}


def tree(likeness: np.ndarray, rng: np.random.Generator, outliers_low: bool = False) -> Links:
    """Slices that each hang on an earlier one; `outliers_low`: the least alike links are those of leaves."""
    end = np.arange(1, len(likeness) + 1)
    start = (rng.random(len(likeness)) * end).astype(np.int64)
    if outliers_low:
        inner = np.isin(end, start)
        order = np.lexsort((rng.random(len(end)), inner))
        likeness = np.sort(likeness)[np.argsort(order)]
    likeness = likeness.astype(np.float32)
    return Links(start, end, likeness, likeness)


def alike(z: np.ndarray) -> np.ndarray:
    """Fisher's z, brought into the range that slices have, as correlations."""
    return np.tanh(1 + (z - z.min()) / np.ptp(z) * 2)


def people(count: int, slices: int, rng: np.random.Generator, apart: float) -> tuple[Links, np.ndarray]:
    """Chains of slices, linked across at z of 1.2 to 2 and within from `apart` above that; and who is who."""
    who = np.repeat(np.arange(count), slices)
    within = np.tile(np.arange(slices) > 0, count)[1:]
    z = np.where(within, 2 + apart + rng.exponential(0.3, len(within)), 1.2 + 0.8 * rng.random(len(within)))
    likeness = np.tanh(z).astype(np.float32)
    end = np.arange(1, count * slices)
    return Links(end - 1, end, likeness, likeness), who


@pytest.mark.parametrize("density", SMOOTH)
@pytest.mark.parametrize("count", [50, 400])
def test_a_gap_is_called_clear_no_oftener_than_it_says(density, count):
    rng = np.random.default_rng(0)
    chances = [
        min([gap.chance for gap in gaps(np.sort(alike(SMOOTH[density](rng, count))))] or [1]) for _ in range(200)
    ]
    assert np.mean(np.array(chances) < 0.05) <= 0.1  # of 200, at a true 5 %, 0.1 is passed in 1 of 1,000


def test_people_are_told_apart_and_the_chance_is_that_of_both_tests():
    links, who = people(24, 8, np.random.default_rng(0), 0.3)
    gap, groups = part(len(who), links)
    assert np.array_equal(groups, who)
    clearest = gaps(np.sort(links.likeness))[0]
    assert gap.chance < min(clearest.chance, CHANCE)
    assert gap.chance == pytest.approx(clearest.chance * 0.005 * (1 - np.log(clearest.chance * 0.005)))


def test_a_gap_that_parts_off_outliers_alone_parts_no_patients():
    """As wide a gap as people have, with the low links at the leaves: each cuts one slice off a large rest."""
    rng = np.random.default_rng(0)
    links, who = people(24, 8, rng, 0.3)
    outliers = tree(links.likeness, rng, outliers_low=True)
    assert gaps(np.sort(outliers.likeness))[0].chance < 0.05
    gap, groups = part(len(who), outliers)
    assert gap is not None
    assert groups is None


def test_many_people_whose_gap_is_narrow_are_told_apart_by_how_even_the_parting_is():
    """The most alike of a hundred pairs across comes close to the least alike of thousands within."""
    links, who = people(114, 88, np.random.default_rng(0), 0.05)
    clearest = next(gap for gap in gaps(np.sort(links.likeness)) if np.tanh(1.9) < gap.below < np.tanh(2.01))
    assert clearest.chance > CHANCE
    gap, groups = part(len(who), links)
    assert gap.chance < CHANCE
    assert np.array_equal(groups, who)


def test_few_links_say_nothing():
    rng = np.random.default_rng(0)
    assert part(1, tree(np.empty(0), rng)) == (None, None)
    assert part(9, tree(np.linspace(0.5, 0.9, 8), rng)) == (None, None)
    assert part(40, tree(np.ones(39), rng)) == (None, None)  # all identical


@pytest.mark.parametrize("density", SMOOTH)
def test_patients_are_invented_in_fewer_than_one_of_a_hundred_datasets(density):
    rng = np.random.default_rng(1)
    counts = rng.integers(30, 300, 1000)
    invented = [part(count + 1, tree(alike(SMOOTH[density](rng, count)), rng))[1] is not None for count in counts]
    assert np.mean(invented) < 0.01
