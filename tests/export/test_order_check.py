"""Labelled images against the order that was assumed: a far better one is a refusal, chance is not."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from stageproof.export.reference.order_check import better_order, check_order
from stageproof.runtime.errors import CheckpointError
from stageproof.runtime.labels import ALPHABETICAL, ASSUMED, FOUR_STAGES, LABELS
from stageproof.train.foreign.class_order import ClassOrder


def answers(order, right: float, count: int = 200, classes=LABELS, seed: int = 0):
    """Logits of a network whose outputs have `order`, right for a share of the images; the truth in ALPHABETICAL."""
    rng = np.random.default_rng(seed)
    truth = [classes[at] for at in rng.integers(0, len(classes), count)]
    decided = [name if rng.random() < right else LABELS[rng.integers(4)] for name in truth]
    logits = np.eye(4)[[order.index(name) for name in decided]]
    return logits, np.array([ALPHABETICAL.index(name) for name in truth])


def test_every_other_order_of_a_good_network_is_found():
    for order in itertools.permutations(LABELS):
        found = better_order(*answers(order, 0.9), ALPHABETICAL)
        if sum(a == b for a, b in zip(order, ALPHABETICAL, strict=True)) == 4:
            assert found is None
        else:
            assert found is not None
            assert found[0] == order
            assert found[1] > 0.85 > found[2] + 0.2


@pytest.mark.parametrize("seed", range(20))
def test_a_network_that_knows_nothing_has_no_better_order(seed):
    assert better_order(*answers(LABELS, 0.0, seed=seed), ALPHABETICAL) is None


def test_a_class_without_images_and_too_few_images():
    found = better_order(*answers(LABELS, 0.95, classes=LABELS[:3]), ALPHABETICAL)
    assert found is not None
    assert found[0] == LABELS
    assert better_order(*answers(LABELS, 1.0, count=10), ALPHABETICAL) is None
    assert better_order(*answers(LABELS, 1.0, classes=LABELS[:1]), ALPHABETICAL) is None


def test_an_assumption_is_refused_and_a_statement_warned_of(said):
    logits, truth = answers(LABELS, 0.9)
    with pytest.raises(
        CheckpointError, match=f"assumed alphabetical.*, and (8|9).% with the order.*--labels {' '.join(LABELS)}$"
    ):
        check_order(ClassOrder(ALPHABETICAL, ASSUMED, "", FOUR_STAGES), logits, truth, "scans")
    assert not said
    check_order(ClassOrder(ALPHABETICAL, "checkpoint", "", FOUR_STAGES), logits, truth, "scans")
    assert said[0].startswith("WARNING: The class order MildDemented")
    check_order(ClassOrder(ALPHABETICAL, ASSUMED, "", FOUR_STAGES), *answers(ALPHABETICAL, 0.9), "scans")
    assert len(said) == 1
