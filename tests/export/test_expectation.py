"""What the gate is expected to find."""

from __future__ import annotations

import numpy as np
import pytest

from stageproof.export.quantization import flip_forecast as expectation
from stageproof.export.quantization.flip_forecast import changes, probability_to_pass
from stageproof.export.statistics.clustered import Counts, within

TOLERANCE = 0.02
PEOPLE, SLICES, MEASURED, OF_EACH = 160, 4, 32, 8


def test_an_answer_changes_with_its_class_or_its_status():
    reference = np.array([[1.0, 0.0, -9.0], [0.1, 0.0, -9.0], [0.0, 0.3, -9.0]], np.float32)
    errors = np.array([[0.0, 0.2, 0.0], [0.2, 0.0, 0.0], [0.5, 0.0, 0.0], [7.0, 7.0, 7.0]], np.float32)
    assert changes(reference, errors).mean(1).tolist() == [0.0, 0.25, 0.25]
    # The second is sure of 0.525, the third of 0.574: 0.5 more for its class, and the second no longer abstains.
    assert changes(reference, errors, abstain_below=0.6)[1].tolist() == [True, False, True, False]


def test_what_changes_nothing_passes_and_what_changes_all_does_not():
    people, none = np.repeat(np.arange(160), 4), np.zeros((640, 50), bool)
    measured = np.repeat(np.arange(10), 5)
    assert probability_to_pass(none, people, measured, 0.02, 0.95) == 1.0
    assert probability_to_pass(~none, people, measured, 0.02, 0.95) == 0.0
    assert probability_to_pass(none[:40], people[:40], measured, 0.02, 0.95) == 0.0, "10 people show no 2 %"
    assert probability_to_pass(none, None, None, 0.0, 0.95) == 1.0


def test_errors_of_one_person_make_it_less_certain():
    """The same share of changes in one of ten people or in all of them."""
    people, measured = np.repeat(np.arange(160), 4), np.repeat(np.arange(10), 100)
    even, uneven = np.zeros((640, 1000), bool), np.zeros((640, 1000), bool)
    even[:, ::100], uneven[:, :10] = True, True
    chances = [probability_to_pass(one, people, measured, 0.03, 0.95) for one in (even, uneven)]
    assert chances[1] < chances[0] - 0.1


def simulated(runs: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(runs,) the stated probability of the candidate that was chosen, and whether it passed.

    Four candidates, the coarsest first; the errors of people differ in size (log-normal, 0.5).
    """
    random = np.random.default_rng(seed)
    whose, measured = np.repeat(np.arange(PEOPLE), SLICES), np.repeat(np.arange(MEASURED), OF_EACH)
    half = measured % 2 == 1
    stated, passed = np.zeros(runs), np.zeros(runs)

    def errors(scale: float, people: np.ndarray) -> np.ndarray:
        sizes = scale * random.lognormal(0, 0.5, int(people.max()) + 1)
        return (sizes[people, None] * random.normal(size=(len(people), 4))).astype(np.float32)

    for run in range(runs):
        reference = (np.eye(4)[random.integers(0, 4, len(whose))] * 3).astype(np.float32)
        reference += random.normal(0, 1, reference.shape).astype(np.float32)
        scale, best = random.uniform(0.03, 0.08), (-1.0, 0.0, 0.0)
        for smaller in (1.0, 0.7, 0.5, 0.35):
            found = changes(reference, errors(scale * smaller, measured))
            ways = ((found[:, part], whose, measured[part], TOLERANCE, 0.95) for part in (~half, half))
            chance, other = (probability_to_pass(*way) for way in ways)
            best = max(best, (chance, other, scale * smaller))
            if chance >= 0.95:
                break
        answer = reference + errors(best[2], whose)
        counts = Counts.of(answer.argmax(1) != reference.argmax(1), whose)
        stated[run], passed[run] = best[1], within(counts, TOLERANCE)
    return stated, passed


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_the_stated_probability_is_how_often_it_passes(monkeypatch):
    monkeypatch.setattr(expectation, "DRAWS", 100)
    stated, passed = simulated(1000, seed=6)
    assert abs(stated.mean() - passed.mean()) <= 0.05
    sure = stated >= 0.9
    assert passed[sure].mean() >= stated[sure].mean() - 0.05
