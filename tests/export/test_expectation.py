"""What the gate is expected to find."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from export.expectation import chance_of_at_most, flip_chances, most_flips


@pytest.mark.parametrize(
    ("images", "tolerance", "flips"),
    [(512, 0.02, 4), (1024, 0.02, 12), (149, 0.02, 0), (148, 0.02, -1), (64, 0.02, -1), (64, 0.0, 0), (3, 1.0, 3)],
)
def test_most_flips_is_what_the_bound_allows(images, tolerance, flips):
    assert most_flips(images, tolerance) == flips


def test_a_chance_is_the_share_of_errors_that_change_the_decision():
    reference = np.array([[1.0, 0.0, -9.0], [0.1, 0.0, -9.0], [0.0, 0.3, -9.0]], np.float32)
    errors = np.array([[0.0, 0.2, 0.0], [0.2, 0.0, 0.0], [0.5, 0.0, 0.0], [7.0, 7.0, 7.0]], np.float32)
    assert flip_chances(reference, errors).tolist() == [0.0, 0.25, 0.25]


def test_chances_that_are_alike_are_a_binomial():
    assert chance_of_at_most(4, np.full(512, 0.01)) == pytest.approx(binom.cdf(4, 512, 0.01))
    assert chance_of_at_most(0, np.array([0.5, 0.0, 1e-3])) == pytest.approx(0.5 * 0.999)
    assert chance_of_at_most(-1, np.zeros(3)) == 0.0
    assert chance_of_at_most(1, np.array([1.0, 1.0])) == 0.0
