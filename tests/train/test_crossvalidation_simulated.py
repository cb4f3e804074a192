"""Line 9 of the statistics, at full size: python -m pytest -m slow tests/train/test_crossvalidation_simulated.py

The figures that these runs gave are in docs/statistics/crossvalidation.md.
"""

from __future__ import annotations

import numpy as np
import pytest

from tests.train.crossvalidation_simulation import COLUMNS, SIGNAL, Learner, baselines, guess, held, ridge, simulated
from tests.train.crossvalidation_simulation import neighbours as remembering

RUNS = 1000
AREAS = [at for at, (_, _, name) in enumerate(COLUMNS) if name == "demented.auc"]
HEADLINE = COLUMNS.index(("patients", "mean", "demented.auc"))
pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("learner", "features"), [(ridge, 8), (ridge, 64), (remembering, 16)])
def test_without_signal_the_interval_of_the_area_holds_one_half(learner: Learner, features: int) -> None:
    covered, above, _ = held(simulated(RUNS, learner, features), 0.5)
    assert (covered[AREAS] >= 0.93).all()
    assert (covered[AREAS] <= 0.97).all()
    assert (above <= 0.05).all()
    assert (covered >= 0.93).all()


def test_a_shift_between_folds_leaves_the_mean_of_the_folds() -> None:
    found = simulated(RUNS, guess, 4, signal=SIGNAL, shift=1.0)
    value = dict(zip(COLUMNS, found[:, :, 0].mean(0), strict=True))
    assert value["slices", "mean", "demented.auc"] == pytest.approx(0.75, abs=0.01)
    assert value["slices", "pooled", "demented.auc"] < 0.72
    covered, _, _ = held(found, 0.75)
    assert covered[COLUMNS.index(("slices", "mean", "demented.auc"))] >= 0.93


@pytest.mark.parametrize("features", [16, 64])
def test_without_signal_the_interval_of_the_linear_baseline_holds_one_half(features: int) -> None:
    covered, _, _ = held(baselines(RUNS, features), np.array([0.5, 0.5]))
    assert 0.93 <= covered[0] <= 0.97
    assert covered[1] >= 0.93
