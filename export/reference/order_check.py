"""Tests the class order of a foreign checkpoint on labelled images: would another order be far more accurate?"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from stageproof.runtime.errors import CheckpointError
from stageproof.runtime.labels import ASSUMED
from stageproof.train.foreign.class_order import ClassOrder

logger = logging.getLogger(__name__)

LEAST_GAIN = 0.2
"""Minimum gain in accuracy for reporting another order."""
LEAST_GAIN_OF_TWO = 0.5
"""As `LEAST_GAIN`, for two classes: the only other order is right wherever this one is wrong, so that one of the two is
often better by chance."""
LEAST_IMAGES = 20
"""Minimum number of images for the test."""


def better_order(
    logits: np.ndarray, truth: np.ndarray, labels: Sequence[str]
) -> tuple[tuple[str, ...], float, float] | None:
    """(class order with a far higher accuracy, its accuracy, accuracy of the present order), both in [0, 1].

    None if there is no such order, for fewer than 20 images or fewer than two classes with images, and where several
    classes have no images, since the order of their outputs cannot be determined. The gain must be at least 0.2, or 0.5
    for a model of two classes: images of one patient are correlated, so a significance test over images would report
    chance findings.

    logits: (N, classes). truth: (N,) int, index into `labels`. labels: the present class order.
    """
    from scipy.optimize import linear_sum_assignment

    count = len(labels)
    if len(truth) < LEAST_IMAGES or len(np.unique(truth)) < max(2, count - 1):
        return None
    table = np.zeros((count, count), np.int64)
    np.add.at(table, (truth, logits.argmax(1)), 1)
    # The assignment of classes to outputs with the most correct predictions; all permutations are too many to try.
    classes, outputs = linear_sum_assignment(table, maximize=True)
    right, now = int(table[classes, outputs].sum()), int(np.trace(table))
    if right - now < (LEAST_GAIN if count > 2 else LEAST_GAIN_OF_TWO) * len(truth):
        return None
    order = [labels[at] for at in classes[np.argsort(outputs)]]
    return tuple(order), right / len(truth), now / len(truth)


def check_order(order: ClassOrder, logits: np.ndarray, truth: np.ndarray, source: str) -> None:
    """Test the class order on labelled images of `source`; warns if a stated order does not fit.

    Raises CheckpointError if the order was only assumed and another one fits far better.
    """
    found = better_order(logits, truth, order.labels)
    if found is None:
        return
    labels, then, now = found
    text = (
        f"The class order {', '.join(order.labels)} ({order.origin}) does not fit the labels of {source}: accuracy is "
        f"{now:.0%} on {len(truth)} images, and {then:.0%} with the order {', '.join(labels)}."
    )
    if order.origin == ASSUMED:
        raise CheckpointError(f"{text} Give the order used in training, such as: --labels {' '.join(labels)}")
    logger.warning(f"{text} Check the class order stated by the checkpoint.")
