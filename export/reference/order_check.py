"""Whether labelled images fit the order of a foreign checkpoint's classes: an assumption is put to the test."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np

from stageproof.runtime.errors import CheckpointError
from stageproof.runtime.labels import ASSUMED
from stageproof.train.foreign.class_order import ClassOrder

LEAST_GAIN = 0.2
"""Share of the images that another order must answer right in addition before it is spoken of."""
LEAST_IMAGES, LEAST_CLASSES = 20, 3
"""Of two classes alone the order of the other outputs would stay open."""


def better_order(
    logits: np.ndarray, truth: np.ndarray, labels: Sequence[str]
) -> tuple[tuple[str, ...], float, float] | None:
    """The order of the classes in which the network is right far more often, and its accuracy then and now, in [0, 1].

    None where there is no such order, and for fewer than 20 images or fewer than three classes of them. The gain has to
    be a fifth of the images: images of one person are alike, so that a test of significance over them would call chance
    a finding.

    logits: (N, classes). truth: (N,) int, positions in `labels`. labels: of the outputs, as they are taken to be.
    """
    if len(truth) < LEAST_IMAGES or len(np.unique(truth)) < LEAST_CLASSES:
        return None
    table = np.zeros((len(labels), len(labels)), np.int64)
    np.add.at(table, (truth, logits.argmax(1)), 1)
    outputs = range(len(labels))
    # right[k]: answers that would be right, were output j the class order[j].
    orders = list(itertools.permutations(outputs))
    right = [sum(int(table[order[output], output]) for output in outputs) for order in orders]
    best, now = max(range(len(orders)), key=right.__getitem__), int(np.trace(table))
    if right[best] - now < LEAST_GAIN * len(truth):
        return None
    return tuple(labels[at] for at in orders[best]), right[best] / len(truth), now / len(truth)


def check_order(
    order: ClassOrder, logits: np.ndarray, truth: np.ndarray, source: str, say: Callable[[str], None]
) -> None:
    """Compare the order with labelled images of `source`; `say` takes a warning where a stated one does not fit them.

    Raises CheckpointError where the order was only assumed and another one fits far better.
    """
    found = better_order(logits, truth, order.labels)
    if found is None:
        return
    labels, then, now = found
    text = (
        f"The class order {', '.join(order.labels)} ({order.origin}) does not fit the labels of {source}: the model "
        f"is right for {now:.0%} of {len(truth)} images, and for {then:.0%} in the order {', '.join(labels)}."
    )
    if order.origin == ASSUMED:
        raise CheckpointError(f"{text} Find out which it was trained with, and say it: --labels {' '.join(labels)}")
    say(f"WARNING: {text} Check how the checkpoint came by its order.")
