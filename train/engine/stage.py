"""What changes while a stage trains, beside the weights: all of it goes into a checkpoint."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from stageproof.train.engine.ema import WeightAverage


class StageState:
    """Optimizer, gradient scaler, moving average, place in the stage, and the best epoch so far."""

    def __init__(
        self, trained: nn.Module, optimizer: torch.optim.Optimizer, *, device_type: str, fp16: bool, ema: float
    ) -> None:
        self.trained, self.optimizer = trained, optimizer
        self.scaler = torch.amp.GradScaler(device_type, enabled=fp16)
        self.average = WeightAverage(trained, ema) if ema else None
        self.epoch, self.step = 1, 0
        self.sums = [0.0, 0.0, 0.0]
        """Of this epoch: loss, right answers, slices."""
        self.seconds = 0.0
        """Of this epoch, in the steps."""
        self.best: float | None = None
        self.best_weights: dict[str, torch.Tensor] | None = None
        self.stale = 0
        """Epochs since the best one."""
        self.parts = 1
        """Pieces a batch is computed in; more than one after the device's memory ran out."""

    def judge(self, value: float, smaller_is_better: bool, keep_weights: bool) -> None:
        """Take note of an epoch's figure; the module holds the weights that earned it."""
        better = self.best is None or (value < self.best if smaller_is_better else value > self.best)
        self.stale = 0 if better else self.stale + 1
        if not better:
            return
        self.best = value
        if keep_weights:
            self.best_weights = {name: tensor.detach().clone() for name, tensor in self.trained.state_dict().items()}

    def next_epoch(self) -> None:
        """Begin the epoch after this one."""
        self.epoch, self.step, self.seconds = self.epoch + 1, 0, 0.0
        self.sums = [0.0, 0.0, 0.0]

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain containers: what `load_state_dict` takes back."""
        return {
            **{name: getattr(self, name) for name in _PLAIN},
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": self.average.state_dict() if self.average else None,
            "best_weights": self.best_weights,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from where `state_dict` was asked. The module's own weights are loaded elsewhere."""
        for name in _PLAIN:
            setattr(self, name, copy.copy(state[name]))
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.average:
            self.average.load_state_dict(state["average"])
        self.best_weights = state["best_weights"]


_PLAIN = ("epoch", "step", "sums", "seconds", "best", "stale", "parts")
