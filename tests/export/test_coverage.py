"""References whose answers show nothing: whatever is compared with them, nothing is certified."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest

from stageproof.export.parity.coverage import answers, not_tested, remarks, why_uninformative
from stageproof.export.parity.report import TOLERANCES, Tolerance, compare
from stageproof.export.statistics.binomial import minimum_images, upper_bound
from stageproof.runtime.labels import LABELS
from stageproof.runtime.softmax import probabilities

RNG = np.random.default_rng(0)
IMAGES = 512


def firm(shares: tuple[float, ...]) -> np.ndarray:
    """(512, classes) float32 logits, firm, each class with its share of the images."""
    counts = np.round(np.cumsum([0, *shares]) * IMAGES).astype(int)
    rows = np.zeros((IMAGES, len(shares)), np.float32)
    for index, (first, last) in enumerate(pairwise(counts)):
        rows[first:last, index] = 6
    return rows + RNG.normal(0, 0.2, rows.shape).astype(np.float32)


CONSTANT = np.tile(np.array([[1.0, 0.2, 0.1, 0.0]], np.float32), (IMAGES, 1))
DEGENERATE = {
    "a network that is a constant": CONSTANT,
    "one answer for all, probabilities that vary": firm((1.0, 0.0, 0.0, 0.0)),
    "one answer for 97 %": firm((0.97, 0.01, 0.01, 0.01)),
    "one answer of two classes": firm((0.98, 0.02)),
    "ties all over, decided by rounding": CONSTANT * 0 + RNG.normal(0, 1e-5, (IMAGES, 4)).astype(np.float32),
    "not a number once": np.where(np.arange(IMAGES)[:, None] == 7, np.nan, firm((0.25,) * 4)).astype(np.float32),
    "not a number": CONSTANT * np.nan,
    "infinite": np.where(np.arange(4) == 2, np.inf, firm((0.25,) * 4)).astype(np.float32),
    "saturated, one answer": CONSTANT * 1e6,
}
USEFUL = {
    "all four classes": firm((0.25,) * 4),
    "a weak network: nine in ten alike": firm((0.9, 0.05, 0.05, 0.0)),
    "a dead class": firm((0.4, 0.3, 0.3, 0.0)),
    "two classes": firm((0.7, 0.3)),
    "saturated": firm((0.25,) * 4) * 1e4,
    "hardly sure of anything": RNG.normal(0, 0.02, (IMAGES, 4)).astype(np.float32),
}


def labels_of(logits: np.ndarray) -> tuple[str, ...]:
    return LABELS[: logits.shape[1]]


@pytest.mark.parametrize("precision", TOLERANCES)
@pytest.mark.parametrize("name", DEGENERATE)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_reference_that_shows_nothing_certifies_nothing(name, precision):
    logits = DEGENERATE[name]
    parity = compare(logits, logits.copy(), labels_of(logits), tolerance=TOLERANCES[precision])
    assert not parity.holds
    assert str(parity).startswith("cannot be compared: ")
    assert parity.to_dict()["shows_nothing"] == parity.shows_nothing != ""


@pytest.mark.parametrize("precision", TOLERANCES)
@pytest.mark.parametrize("name", USEFUL)
def test_a_real_reference_is_certified_in_every_precision(name, precision):
    logits = USEFUL[name]
    parity = compare(logits, logits.copy(), labels_of(logits), tolerance=TOLERANCES[precision])
    assert parity.holds, parity
    assert sum(parity.answers.values()) == IMAGES
    json.dumps(parity.to_dict(), allow_nan=False)


@pytest.mark.parametrize("precision", TOLERANCES)
@pytest.mark.parametrize("name", USEFUL)
def test_no_artifact_that_ignores_its_input_passes(name, precision):
    logits = USEFUL[name]
    for answer in range(logits.shape[1]):
        constant = np.zeros_like(logits)
        constant[:, answer] = 0.01
        parity = compare(logits, constant, labels_of(logits), tolerance=TOLERANCES[precision])
        assert not parity.holds


def test_tolerances_that_let_a_constant_pass_show_nothing():
    logits = firm((0.9, 0.1, 0.0, 0.0))
    wide = compare(logits, logits.copy(), LABELS, tolerance=Tolerance(1.0, 0.5))
    assert not wide.holds
    assert "would pass" in str(wide)
    assert "--flip-tolerance" in str(wide)


def test_a_class_that_is_never_answered_is_named_as_not_tested():
    logits = firm((0.5, 0.3, 0.2, 0.0))
    parity = compare(logits, logits.copy(), LABELS, tolerance=TOLERANCES["fp32"])
    assert parity.not_tested == (LABELS[3],) == not_tested(parity.answers)
    assert parity.answers[LABELS[0]] == IMAGES // 2
    (said,) = remarks(probabilities(logits), LABELS)
    assert said.startswith("not tested: ModerateDemented.")


def test_near_ties_and_saturation_are_said():
    (ties,) = remarks(probabilities(USEFUL["hardly sure of anything"] * 0.1), LABELS)
    assert "near-ties" in ties
    (full,) = remarks(probabilities(USEFUL["saturated"]), LABELS)
    assert "have a probability of 1" in full
    assert remarks(probabilities(USEFUL["all four classes"]), LABELS) == []


def test_what_it_says_names_the_answer_and_what_to_do():
    said = why_uninformative(probabilities(firm((0.0, 1.0, 0.0, 0.0))), LABELS)
    assert said.startswith("the reference predicts VeryMildDemented for 100.0% of 512 images: too uniform")
    assert "--parity-data" in said
    assert answers(probabilities(CONSTANT), LABELS)["NonDemented"] == IMAGES


@pytest.mark.parametrize("tolerance", [1.0, 0.5, 0.2, 0.1, 0.05, 0.026, 0.02, 0.01, 0.001])
def test_the_fewest_images_are_exactly_as_many_as_the_bound_takes(tolerance):
    images = minimum_images(tolerance)
    assert upper_bound(0, images) <= tolerance
    assert images == 1 or upper_bound(0, images - 1) > tolerance
