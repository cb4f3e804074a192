"""Exponential moving average of the weights (Polyak and Juditsky 1992; as in Tarvainen and Valpola 2017)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from stageproof.train.networks import load_state


class WeightAverage:
    """Exponential moving average of the weights and BatchNorm statistics of a module."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module, self.decay, self.steps = module, decay, 0
        self.values = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}

    @torch.no_grad()
    def update(self) -> None:
        """Update the average. The decay is smaller in the first steps, so that the initial weights soon fade."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for name, tensor in self.module.state_dict().items():
            if tensor.is_floating_point():
                self.values[name].lerp_(tensor, 1 - decay)
            else:
                self.values[name].copy_(tensor)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Context manager: the module has the averaged weights inside it, and its own weights afterwards."""
        own = {name: tensor.detach().clone() for name, tensor in self.module.state_dict().items()}
        load_state(self.module, self.values)
        try:
            yield
        finally:
            load_state(self.module, own)

    def state_dict(self) -> dict[str, object]:
        """The state, for `load_state_dict`."""
        return {"steps": self.steps, "values": self.values}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Restore a state that `state_dict` returned."""
        steps, values = state["steps"], state["values"]
        assert isinstance(steps, int)
        assert isinstance(values, dict)
        self.steps = steps
        for name, tensor in values.items():
            self.values[name].copy_(tensor)
