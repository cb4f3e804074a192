"""`StageState`: the training state of a stage apart from the weights, as saved in checkpoints."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from stageproof.train.engine.ema import WeightAverage


class StageState:
    """Optimizer, gradient scaler, moving average, epoch and step, and the best epoch so far."""

    def __init__(
        self, trained: nn.Module, optimizer: torch.optim.Optimizer, *, device_type: str, fp16: bool, ema: float
    ) -> None:
        self.trained, self.optimizer = trained, optimizer
        self.scaler = torch.amp.GradScaler(device_type, enabled=fp16)
        self.average = WeightAverage(trained, ema) if ema else None
        self.epoch, self.step = 1, 0
        self.sums = [0.0, 0.0, 0.0]
        """Sums over this epoch: loss, correct predictions, slices."""
        self.seconds = 0.0
        """Time spent in the steps of this epoch."""
        self.best: float | None = None
        self.best_weights: dict[str, torch.Tensor] | None = None
        self.stale = 0
        """Epochs since the best epoch."""
        self.parts = 1
        """Parts in which a batch is computed; more than one after the device ran out of memory."""

    def update_best(self, value: float, smaller_is_better: bool, keep_weights: bool) -> None:
        """Compare the metric of an epoch with the best so far. The module must have the weights of that epoch."""
        better = self.best is None or (value < self.best if smaller_is_better else value > self.best)
        self.stale = 0 if better else self.stale + 1
        if not better:
            return
        self.best = value
        if keep_weights:
            self.best_weights = {name: tensor.detach().clone() for name, tensor in self.trained.state_dict().items()}

    def next_epoch(self) -> None:
        """Go to the start of the next epoch."""
        self.epoch, self.step, self.seconds = self.epoch + 1, 0, 0.0
        self.sums = [0.0, 0.0, 0.0]

    def begin_after(self, values: Sequence[float], smaller_is_better: bool, keep_weights: bool) -> None:
        """Go on after the epochs of a finished run, whose metric had these values. The module has the kept weights, and
        the optimizer begins anew."""
        self.epoch = len(values) + 1
        if values:
            self.update_best(min(values) if smaller_is_better else max(values), smaller_is_better, keep_weights)

    def state_dict(self) -> dict[str, Any]:
        """The state as tensors and plain containers, for `load_state_dict`."""
        return {
            **{name: getattr(self, name) for name in _PLAIN},
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": self.average.state_dict() if self.average else None,
            "best_weights": self.best_weights,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned. The weights of the module are loaded separately."""
        for name in _PLAIN:
            setattr(self, name, copy.copy(state[name]))
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.average:
            self.average.load_state_dict(state["average"])
        self.best_weights = state["best_weights"]


_PLAIN = ("epoch", "step", "sums", "seconds", "best", "stale", "parts")
