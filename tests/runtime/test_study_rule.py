"""`StudyRule` and the evidence that it takes: independent of the temperature, and bounded for each slice."""

from __future__ import annotations

import numpy as np
import pytest

from stageproof.runtime import BundleError
from stageproof.runtime.softmax import probabilities
from stageproof.runtime.study import FLOOR, StudyRule, evidence_of

LOGITS = np.random.default_rng(0).normal(0, 3, (20, 4))
RULE = {"intercepts": [0.5, -0.25, 0.0, -0.25], "slope": 1.5, "abstain_below": 0.25}


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_the_temperature_of_the_probabilities_is_undone(temperature: float) -> None:
    expected = np.log(probabilities(LOGITS))
    assert evidence_of(probabilities(LOGITS, temperature), temperature) == pytest.approx(expected, abs=1e-9)


def test_one_slice_cannot_decide_a_study() -> None:
    certain = evidence_of(np.array([[1.0, 0.0, 0.0, 0.0]]))
    assert certain == pytest.approx(np.array([[0.0, FLOOR, FLOOR, FLOOR]]), abs=1e-9)
    assert pytest.approx(-27.63, abs=0.01) == FLOOR  # ln 1e-12


def test_probabilities_are_the_softmax_of_intercepts_and_slope_times_evidence() -> None:
    rule = StudyRule.from_dict(RULE, 4, "here")
    evidence = evidence_of(probabilities(LOGITS))
    scores = np.exp(np.array(RULE["intercepts"]) + RULE["slope"] * evidence)
    assert rule.probabilities(evidence) == pytest.approx(scores / scores.sum(1, keepdims=True))
    assert rule.to_dict() == RULE


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"slope": -1e-9}, "slope is -1e-09, expected 0 or more"),
        ({"abstain_below": 1.0}, "abstain_below is 1.0, expected 0 or more and below 1"),
        ({"abstain_below": -0.1}, "abstain_below is -0.1, expected"),
        ({"intercepts": [0.0, 0.0, 0.0]}, "'intercepts' is not a list of 4 finite numbers"),
    ],
)
def test_a_value_out_of_range_is_refused(change: dict, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        StudyRule.from_dict({**RULE, **change}, 4, "here")


def test_a_slope_of_zero_is_a_rule_that_learnt_nothing_of_the_slices() -> None:
    rule = StudyRule.from_dict({**RULE, "slope": 0}, 4, "here")
    found = rule.probabilities(evidence_of(probabilities(LOGITS)))
    assert np.ptp(found, axis=0).max() == 0
