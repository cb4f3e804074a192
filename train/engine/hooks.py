"""What the loop tells while it trains, and whom it asks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from stageproof.train.runs.metrics_log import Epoch


@dataclass(frozen=True)
class Step:
    """The figures of one step, and of its epoch so far."""

    stage: str
    epoch: int
    """From 1."""
    step: int
    """From 1."""
    steps: int
    """In the epoch."""
    step_loss: float
    loss: float
    """Mean over the epoch so far."""
    accuracy: float
    images_per_second: float
    learning_rate: float


@dataclass(frozen=True)
class Hooks:
    """What the loop asks and tells; in every process, though only the leader's may write."""

    measure: Callable[[np.ndarray, np.ndarray], Mapping[str, float]]
    """Logits and labels of the validation slices → loss, accuracy, balanced_accuracy, and patient_accuracy where
    patients are known."""
    on_step: Callable[[Step], None]
    on_epoch: Callable[[Epoch], None]
    checkpoint: Callable[[], None]
    """Write one, now."""
    due: Callable[[], bool]
    """Whether it is time for a checkpoint within an epoch."""
    last_good: Callable[[], str]
    """Names the last checkpoint, for a message."""
    stop: Callable[[], bool]
    """Whether this process was asked to stop."""
    say: Callable[[str], None]
    worth: Callable[[], bool] = lambda: True
    """Whether a checkpoint after an epoch is worth the time that writing one takes."""
