"""The statistics of a parity report, against values worked out elsewhere."""

from __future__ import annotations

import numpy as np
import pytest

from stageproof.export.parity.accuracy import calibration_error, sensitivity
from stageproof.export.statistics.binomial import level, upper_bound


@pytest.mark.parametrize(("events", "trials"), [(0, 512), (7, 512), (1, 20), (19, 20)])
def test_the_bound_is_the_rate_at_which_so_few_events_become_unlikely(events, trials):
    from scipy.stats import binom

    bound = upper_bound(events, trials)
    assert binom.cdf(events, trials, bound) == pytest.approx(0.05)


def test_no_event_of_none_and_all_events_bound_nothing():
    assert upper_bound(0, 512) == pytest.approx(1 - 0.05 ** (1 / 512))
    assert upper_bound(20, 20) == 1.0


def test_calibration_error_is_the_gap_between_confidence_and_accuracy():
    probabilities = np.array([[0.8, 0.2]] * 10)
    assert calibration_error(probabilities, np.array([0] * 8 + [1] * 2)) == pytest.approx(0.0)
    assert calibration_error(probabilities, np.ones(10, int)) == pytest.approx(0.8)
    assert np.isnan(calibration_error(np.full((3, 2), np.nan), np.zeros(3, int)))


def test_sensitivity_is_by_true_class_and_says_nothing_of_absent_ones():
    probabilities = np.eye(3)[[0, 0, 1, 1]]
    assert sensitivity(probabilities, np.array([0, 0, 0, 1]), ("a", "b", "c")) == {"a": pytest.approx(2 / 3), "b": 1.0}


def test_the_error_rate_is_shared_among_the_artifacts_of_a_bundle():
    assert [level(artifacts) for artifacts in (0, 1, 5, 50)] == pytest.approx([0.95, 0.95, 0.99, 0.999])
