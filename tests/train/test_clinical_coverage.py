"""By simulation: intervals of net benefit and of predictive values hold the truth as often as they say."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from scipy import stats

from stageproof.runtime.labels import FOUR_STAGES
from stageproof.train.evaluate.demographics import subgroups
from stageproof.train.metrics.classification import Answers
from stageproof.train.metrics.net_benefit import net_benefit
from stageproof.train.metrics.prevalence import predictive_values

THRESHOLDS = (0.1, 0.3, 0.5, 0.7)
PREVALENCES = (0.02, 0.1, 0.5)


def truth(shift: float, threshold: float) -> tuple[float, float]:
    """Sensitivity and specificity at a threshold: scores are N(±shift / 2, 1), half of the people are positive."""
    cut = np.log(threshold / (1 - threshold)) / shift
    return float(stats.norm.sf(cut, shift / 2)), float(stats.norm.cdf(cut, -shift / 2))


def drawn(rng: np.random.Generator, count: int, shift: float) -> tuple[np.ndarray, np.ndarray]:
    """The true probabilities of so many patients, and which are positive."""
    positive = rng.random(count) < 0.5
    score = rng.normal(np.where(positive, shift / 2, -shift / 2))
    return 1 / (1 + np.exp(-shift * score)), positive


def held(rng: np.random.Generator, count: int, shift: float, runs: int) -> dict[str, list[np.ndarray]]:
    """Figure → for each run and threshold or prevalence, -1, 0 or 1: the truth is below, inside or above."""
    benefit = {}
    for at in THRESHOLDS:
        sensitivity, specificity = truth(shift, at)
        odds = at / (1 - at)
        model = 0.5 * sensitivity - 0.5 * (1 - specificity) * odds
        benefit[at] = {"model": model, "over_all": model - (0.5 - 0.5 * odds)}
    sensitivity, specificity = truth(shift, 0.5)
    values = {
        p: (
            p * sensitivity / (p * sensitivity + (1 - p) * (1 - specificity)),
            (1 - p) * specificity / ((1 - p) * specificity + p * (1 - sensitivity)),
        )
        for p in PREVALENCES
    }
    found: dict[str, list[np.ndarray]] = {"model": [], "over_all": [], "positive": [], "negative": []}
    while len(found["model"]) < runs:
        probabilities, positive = drawn(rng, count, shift)
        curve = net_benefit(probabilities, positive, THRESHOLDS)["curve"]
        rows = predictive_values(probabilities >= 0.5, positive, PREVALENCES)["at"]
        if curve is None or rows is None:
            continue  # fewer than five on one side: no figure
        for name in ("model", "over_all"):
            found[name].append(np.array([_side(row[name], benefit[row["threshold"]][name]) for row in curve]))
        for which, name in enumerate(("positive", "negative")):
            found[name].append(np.array([_side(row[name], values[row["prevalence"]][which]) for row in rows]))
    return found


def _side(figure: dict, true: float) -> int:
    if figure["value"] is None:
        return 0  # said to be not estimable
    return -1 if true < figure["low"] - 1e-12 else 1 if true > figure["high"] + 1e-12 else 0


@pytest.mark.slow
@pytest.mark.parametrize("shift", [1.0, 2.5])
@pytest.mark.parametrize("count", [20, 40, 160])
def test_intervals_hold_the_truth(count, shift):
    found = held(np.random.default_rng(count), count, shift, 2000)
    for name, sides in found.items():
        outside = np.abs(np.array(sides)).mean(0)
        assert outside.max() < 0.08, name
        assert max((np.array(sides) == -1).mean(0).max(), (np.array(sides) == 1).mean(0).max()) <= 0.05, name


@pytest.mark.slow
@pytest.mark.parametrize("shift", [1.0, 2.5])
def test_intervals_of_subgroups_hold_the_truth(shift):
    """160 patients of whom a third are men, in four bands of age; the model does equally well in all of them."""
    sensitivity, specificity = truth(shift, 0.5)
    area = float(stats.norm.cdf(shift / np.sqrt(2)))
    true = {
        "accuracy": (sensitivity + specificity) / 2,
        "sensitivity": sensitivity,
        "specificity": specificity,
        "auc": area,
    }
    sides: dict[tuple[str, str], list[int]] = {}
    for run in range(1000):
        rng = np.random.default_rng((21, run))
        chance, positive = drawn(rng, 160, shift)
        chances = np.stack([1 - chance, chance, 0 * chance, 0 * chance], 1)
        people = Answers(chances, positive.astype(np.int64), np.arange(160), FOUR_STAGES)
        sexes = np.where(rng.random(160) < 1 / 3, "male", "female").astype(object)
        for one in subgroups(people, rng.normal(75, 9, 160), sexes):
            for name, value in true.items():
                sides.setdefault((one["name"], name), []).append(_side(one[name], value))
    for which, found in sides.items():
        missed = [float(np.mean(np.array(found) == side)) for side in (-1, 0, 1)]
        sys.stdout.write(f"\n{which}: held {missed[1]:.3f}, above {missed[0]:.3f}, below {missed[2]:.3f}")
        assert missed[1] >= 0.92, which
        assert max(missed[0], missed[2]) <= 0.05, which


def test_a_normal_interval_misses_where_few_are_wrong():
    """Why not mean ± 1.96 SE: of 20 patients and a good model it holds the true net benefit far less often."""
    rng, shift, at = np.random.default_rng(0), 2.5, 0.5
    sensitivity, specificity = truth(shift, at)
    true, normal, ours = 0.5 * sensitivity - 0.5 * (1 - specificity), [], []
    for _ in range(400):
        probabilities, positive = drawn(rng, 20, shift)
        acted = probabilities >= at
        each = 1.0 * (acted & positive) - 1.0 * (acted & ~positive)
        normal.append(abs(each.mean() - true) <= 1.96 * each.std(ddof=1) / np.sqrt(20))
        curve = net_benefit(probabilities, positive, (at,))["curve"]
        ours.append(curve is None or _side(curve[0]["model"], true) == 0)
    assert np.mean(ours) > 0.92
    assert np.mean(ours) >= np.mean(normal)
