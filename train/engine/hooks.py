"""Callbacks of the training loop: `Hooks`, and `Step`, the metrics of one step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from stageproof.train.runs.metrics_log import Epoch


@dataclass(frozen=True)
class Step:
    """Metrics of one step, and of its epoch so far."""

    stage: str
    epoch: int
    """From 1."""
    step: int
    """From 1."""
    steps: int
    """Number of steps in the epoch."""
    step_loss: float
    loss: float
    """Mean over the epoch so far."""
    accuracy: float
    images_per_second: float
    learning_rate: float


@dataclass(frozen=True)
class Hooks:
    """Callbacks of the training loop. Every process calls them; only those of rank 0 may write."""

    measure: Callable[[np.ndarray, np.ndarray], Mapping[str, float]]
    """Computes loss, accuracy, balanced_accuracy and, if patients are known, patient_accuracy from the (N, classes)
    logits and (N,) labels of the validation slices."""
    on_step: Callable[[Step], None]
    on_epoch: Callable[[Epoch], None]
    checkpoint: Callable[[], None]
    """Writes a checkpoint now."""
    due: Callable[[], bool]
    """Whether a checkpoint should be written before the epoch ends."""
    last_good: Callable[[], str]
    """Path of the last checkpoint, for messages."""
    stop: Callable[[], bool]
    """Whether this process received a signal to stop."""
    worthwhile: Callable[[], bool] = lambda: True
    """Whether to write a checkpoint after an epoch: not if writing takes long compared with training."""
