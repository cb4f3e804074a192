"""Bounds over people: what they are by hand, and by simulation how often an artifact that changes too much passes."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from stageproof.export.data.sampling import over_people
from stageproof.export.parity.report import Tolerance, compare
from stageproof.export.statistics.binomial import level, upper_bound
from stageproof.export.statistics.clustered import (
    Counts,
    beta_binomial_bound,
    bound,
    design_effect,
    korn_graubard,
    minimum_patients,
    within,
)
from stageproof.runtime.labels import LABELS

TOLERANCE = 0.02
LIMIT = 1280


def drawn(random, people: int, slices: int, share: float, icc: float) -> np.ndarray:
    """(people × slices,) bool, person by person: changes whose probability varies between people (beta)."""
    rates = np.full(people, share)
    if icc:
        both = (1 - icc) / icc
        rates = random.beta(share * both, (1 - share) * both, people)
    return (random.random((people, slices)) < rates[:, None]).ravel()


def passes(random, runs: int, share: float, icc: float, people: int = 160, artifacts: int = 1, limit: int = LIMIT):
    """Share of the runs in which such an artifact passes on the images that are drawn of 32 slices of each person."""
    whose = np.repeat(np.arange(people), 32)
    chosen = over_people(whose, limit)
    confidence, count = level(artifacts), 0
    for _ in range(runs):
        any_of = [drawn(random, people, 32, share, icc)[chosen] for _ in range(artifacts)]
        count += any(within(Counts.of(changed, whose[chosen]), TOLERANCE, confidence) for changed in any_of)
    return count / runs


def old_passes(random, runs: int, share: float, icc: float, people: int) -> float:
    """The same with a bound for independent images, as it was."""
    totals = [int(drawn(random, people, 32, share, icc).sum()) for _ in range(runs)]
    return float(np.mean([upper_bound(total, people * 32) <= TOLERANCE for total in totals]))


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("icc", [0.0, 0.05, 0.1, 0.2, 0.3])
@pytest.mark.parametrize(("people", "limit"), [(160, LIMIT), (160, 5120), (40, LIMIT), (16, LIMIT)])
def test_an_artifact_that_changes_two_per_cent_hardly_ever_passes(people, limit, icc):
    assert passes(np.random.default_rng(1), 2000, 0.02, icc, people, limit=limit) <= 0.07


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("icc", [0.0, 0.05, 0.1])
@pytest.mark.parametrize("limit", [LIMIT, 5120])
def test_an_artifact_that_changes_four_in_a_thousand_passes(limit, icc):
    assert passes(np.random.default_rng(2), 2000, 0.004, icc, limit=limit) >= 0.95


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("icc", [0.0, 0.1, 0.3])
@pytest.mark.parametrize("limit", [LIMIT, 5120])
def test_of_six_bad_artifacts_hardly_ever_any_passes(limit, icc):
    assert passes(np.random.default_rng(3), 1000, 0.02, icc, artifacts=6, limit=limit) <= 0.07


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("icc", [0.0, 0.3])
def test_the_whole_comparison_fails_it(icc):
    """The same through `export.parity.report.compare`, from logits."""
    random = np.random.default_rng(4)
    whose = np.repeat(np.arange(160), 8)
    reference = (np.eye(4)[random.integers(0, 4, len(whose))] * 6).astype(np.float32)
    judged = partial(compare, labels=LABELS, tolerance=Tolerance(1.0, TOLERANCE), people=whose, unit="patients")
    passed = 0
    for _ in range(1000):
        changed = drawn(random, 160, 8, 0.02, icc)
        artifact = np.where(changed[:, None], np.roll(reference, 1, axis=1), reference)
        passed += judged(reference, artifact).holds
    assert passed <= 70


def test_two_per_cent_of_neighbouring_slices_hardly_ever_pass_and_did_before():
    random = np.random.default_rng(5)
    assert old_passes(random, 100, 0.02, 0.2, people=16) > 0.15
    assert passes(random, 100, 0.02, 0.2, people=16) == 0
    assert passes(random, 60, 0.02, 0.3) <= 0.1
    assert passes(random, 60, 0.004, 0.1) >= 0.9


def test_images_that_are_each_of_another_person_are_independent():
    for changed in (0, 3, 20):
        counts = Counts.of(np.arange(512) < changed, np.arange(512))
        assert bound(counts) == pytest.approx(upper_bound(changed, 512))
        assert korn_graubard(counts) == pytest.approx(upper_bound(changed, 512), rel=0.01)
        assert beta_binomial_bound(counts) == pytest.approx(upper_bound(changed, 512), rel=0.002)


def test_the_design_effect_by_hand():
    """Whole people that change count as one image each; changes spread evenly, as more than one."""
    whose = np.repeat(np.arange(10), 5)
    together, apart = whose < 2, np.arange(50) % 5 == 0
    # Variance 10/9 · (2 · 4² + 8 · 1²) / 50² over 0.2 · 0.8 / 49.
    assert design_effect(Counts.of(together, whose)) == pytest.approx(10 / 9 * 40 / 2500 / (0.16 / 49))
    assert design_effect(Counts.of(apart, whose)) == pytest.approx(0, abs=1e-12)
    assert design_effect(Counts.of(whose < 0, whose)) is None
    assert bound(Counts.of(together, whose)) > bound(Counts.of(apart, whose)) > upper_bound(10, 50)


def test_unknown_people_are_never_worth_more_than_known_ones():
    changed = np.zeros(1024, bool)
    changed[[3, 70, 200]] = True
    whose = np.repeat(np.arange(32), 32)
    assert bound(Counts.of(changed, None)) >= bound(Counts.of(changed, whose))
    assert Counts.of(changed[:40], None).sizes.tolist() == [32, 8]


def test_the_bound_grows_with_the_changes_and_is_what_within_says():
    whose = np.repeat(np.arange(40), 8)
    bounds = []
    for changed in (0, 1, 2, 5, 10, 320):
        counts = Counts.of(np.arange(320) * 7 % 320 < changed, whose)
        bounds.append(bound(counts))
        if changed < 320:
            assert within(counts, bounds[-1] * 1.001)
            assert not within(counts, bounds[-1] * 0.998)
    assert bounds == sorted(bounds)
    assert bounds[-1] == 1.0


@pytest.mark.parametrize(("share", "slices", "artifacts"), [(0.02, 8, 1), (0.01, 8, 4), (0.02, 1, 1), (0.02, 32, 6)])
def test_the_fewest_people_are_as_many_as_the_bound_takes(share, slices, artifacts):
    people = minimum_patients(share, slices, level(artifacts))
    for count, enough in ((people, True), (people - 1, False)):
        whose = np.repeat(np.arange(count), slices)
        assert within(Counts.of(whose < 0, whose), share, level(artifacts)) is enough


def test_slices_are_of_as_many_people_as_there_are():
    whose = np.concatenate([np.repeat(np.arange(10), 3), np.full(500, 10)])
    for limit in (5, 11, 33, 60, 1000):
        chosen = over_people(whose, limit)
        counts = np.bincount(whose[chosen], minlength=11)
        assert len(chosen) == min(limit, 530)
        assert len(set(chosen.tolist())) == len(chosen)
        assert (counts > 0).sum() == min(limit, 11)
    assert np.bincount(whose[over_people(whose, 33)]).tolist() == [3] * 11
