"""The verdict: what fails it, and what it says."""

from __future__ import annotations

import json

import numpy as np
import pytest

from stageproof.export.parity.coverage import NEAR_TIE
from stageproof.export.parity.report import Tolerance, compare, tolerance_for
from stageproof.runtime.labels import LABELS


@pytest.fixture
def logits() -> np.ndarray:
    """(512, 4) float32, firm decisions over all classes."""
    rng = np.random.default_rng(0)
    return (np.eye(4)[rng.integers(0, 4, 512)] * 6 + rng.normal(0, 0.2, (512, 4))).astype(np.float32)


def judge(reference, artifact, tolerance="fp32", **more):
    chosen = tolerance if isinstance(tolerance, Tolerance) else tolerance_for(tolerance)
    return compare(reference, artifact, LABELS, tolerance=chosen, **more)


def test_the_same_logits_hold(logits):
    parity = judge(logits, logits.copy())
    assert parity.holds
    assert (parity.flipped, parity.max_probability_difference, parity.images) == (0, 0.0, 512)


def test_one_changed_decision_fails_fp32_and_is_counted_by_its_class(logits):
    other = logits.copy()
    decided = int(logits[7].argmax())
    other[7] = np.roll(other[7], 1)
    parity = judge(logits, other, names=[f"slice {i}" for i in range(512)])
    assert not parity.holds
    assert parity.flipped_by_class == {label: int(i == decided) for i, label in enumerate(LABELS)}
    assert parity.flipped_images == ("slice 7",)


@pytest.mark.parametrize(("flips", "holds"), [(0, True), (4, True), (5, False)])
def test_int8_holds_while_the_bound_on_flips_is_within_two_percent(logits, flips, holds):
    other = logits.copy()
    other[:flips] = np.roll(logits[:flips], 1, axis=1) * 0.1 + logits[:flips] * 0.08
    parity = judge(logits, other, Tolerance(0.99, 0.02))
    assert parity.flipped == flips
    assert parity.holds is holds


def test_too_few_images_cannot_show_a_bound(logits):
    parity = judge(logits[:64], logits[:64], "int8")
    assert not parity.holds
    assert "changes 0 of 64 predictions (upper 0.95 bound 4.6%, allowed 2.0%)" in str(parity)


def test_a_probability_beyond_tolerance_fails_without_any_flip(logits):
    other = logits + np.float32(0.01) * np.eye(4, dtype=np.float32)[0]
    parity = judge(logits, other)
    assert parity.flipped == 0
    assert not parity.holds


def test_the_smallest_tolerance_that_would_have_passed_passes(logits):
    other = logits + np.float32(0.01) * np.eye(4, dtype=np.float32)[0]
    smallest = judge(logits, other).max_probability_difference
    assert judge(logits, other, Tolerance(smallest, 0.0)).holds
    assert not judge(logits, other, Tolerance(smallest * 0.999, 0.0)).holds


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_fails_at_any_tolerance(logits, value):
    other = logits.copy()
    other[3] = value
    with np.errstate(invalid="ignore"):
        parity = judge(logits, other, Tolerance(1.0, 1.0))
        assert not parity.holds
        assert not judge(logits, np.full_like(logits, value), Tolerance(1.0, 1.0)).holds


def test_an_answer_that_depends_on_the_batch_fails(logits):
    shifted = logits[:32] + np.float32(0.5) * np.eye(4, dtype=np.float32)[1]
    assert judge(logits, logits, batches=[logits[:32], logits[:3]]).holds
    parity = judge(logits, logits, batches=[logits[:32], shifted])
    assert not parity.holds
    assert "between batch sizes" in str(parity)


def test_near_ties_are_listed_apart_and_still_count(logits):
    reference, other = logits.copy(), logits.copy()
    reference[0], other[0] = [1.0, 1.0 + NEAR_TIE / 4, 0, 0], [1.0 + NEAR_TIE / 4, 1.0, 0, 0]
    parity = judge(reference, other)
    assert (parity.flipped, parity.flipped_near_ties, parity.near_ties) == (1, 1, 1)
    assert not parity.holds


def test_sensitivity_and_calibration_are_told_where_labels_are_known(logits):
    truth = logits.argmax(1)
    other = logits.copy()
    where = np.flatnonzero(truth == 2)
    other[where] = np.roll(other[where], 1, axis=1)
    parity = judge(logits, other, truth=truth)
    assert parity.sensitivity["reference"][LABELS[2]] == 1.0
    assert parity.sensitivity["artifact"] == {**parity.sensitivity["reference"], LABELS[2]: 0.0}
    assert parity.calibration_error["artifact"] > parity.calibration_error["reference"] + 0.1
    assert judge(logits, other).sensitivity is None


def test_the_temperature_is_part_of_what_is_compared(logits):
    other = logits * np.float32(1.02)
    sharp, soft = (judge(logits, other, temperature=t).max_probability_difference for t in (1.0, 10.0))
    assert soft != pytest.approx(sharp)


def test_what_the_user_allows_replaces_the_precisions_own_and_is_recorded(logits):
    assert tolerance_for("int8", 0.3) == Tolerance(0.3, 0.02)
    assert tolerance_for("int8", None, 0.0) == Tolerance(tolerance_for("int8").probability, 0.0)
    report = judge(logits, logits, Tolerance(0.3, 0.1)).to_dict()
    assert (report["tolerance"], report["flip_tolerance"]) == (0.3, 0.1)
    json.dumps(report, allow_nan=False)
