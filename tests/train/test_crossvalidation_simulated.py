"""Line 9 of the statistics, at full size: python -m pytest -m slow tests/train/test_crossvalidation_simulated.py

The figures that these runs gave are in docs/statistics/crossvalidation.md.
"""

from __future__ import annotations

import sys

import numpy as np
import pytest

from tests.train.crossvalidation_simulation import COLUMNS, SIGNAL, Learner, baselines, guess, held, ridge, simulated
from tests.train.crossvalidation_simulation import neighbours as remembering

RUNS = 1000
HEADLINES = [COLUMNS.index(("patients", "mean", name)) for name in ("positive.auc", "accuracy")]
pytestmark = pytest.mark.slow


def said(title: str, found: np.ndarray, truth: float, columns: tuple = COLUMNS) -> tuple[np.ndarray, np.ndarray]:
    """Shares of intervals that hold the truth and that lie above it; shown by pytest -s, for the table in the docs."""
    covered, above, below = held(found, truth)
    for at, column in enumerate(columns):
        value, spread = found[:, at, 0].mean(), found[:, at, 0].std()
        shares = f"covered {covered[at]:.3f}, above {above[at]:.3f}, below {below[at]:.3f}"
        sys.stdout.write(f"\n{title}: {column}, mean {value:.4f}, SD {spread:.4f}, {shares}")
    sys.stdout.flush()
    return covered, above


@pytest.mark.parametrize(("learner", "features"), [(ridge, 8), (ridge, 64), (remembering, 16)])
def test_without_signal_the_interval_of_the_area_holds_one_half(learner: Learner, features: int) -> None:
    covered, above = said(f"{learner.__name__}, {features} features", simulated(RUNS, learner, features), 0.5)
    if learner is ridge:  # one that remembers single neighbours depends less on the others
        assert (covered[HEADLINES] <= 0.97).all()
    assert (above <= 0.05).all()
    assert (covered >= 0.93).all()


def test_a_shift_between_folds_leaves_the_mean_of_the_folds() -> None:
    found = simulated(RUNS, guess, 4, signal=SIGNAL, shift=1.0)
    value = dict(zip(COLUMNS, found[:, :, 0].mean(0), strict=True))
    assert value["slices", "mean", "positive.auc"] == pytest.approx(0.75, abs=0.01)
    assert value["slices", "pooled", "positive.auc"] < 0.72
    covered, _ = said("shift", found, 0.75)
    assert covered[COLUMNS.index(("slices", "mean", "positive.auc"))] >= 0.93


@pytest.mark.parametrize("features", [16, 64])
def test_without_signal_the_interval_of_the_linear_baseline_holds_one_half(features: int) -> None:
    found = baselines(RUNS, features)
    covered, _ = said(f"linear baseline, {features} features", found, 0.5, ("auc", "accuracy"))
    assert (covered >= 0.93).all()
    if features == 16:  # with half as many features as people, a fit depends less on who trained it: held in 98 %
        assert (covered <= 0.97).all()
