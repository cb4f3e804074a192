"""An exponential moving average of the weights (Polyak and Juditsky 1992; as Tarvainen and Valpola 2017 use it)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn


class WeightAverage:
    """A slow copy of a module's weights and BatchNorm statistics."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module, self.decay, self.steps = module, decay, 0
        self.values = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}

    @torch.no_grad()
    def update(self) -> None:
        """Move towards the module's weights; faster in the first steps, which would otherwise weigh for ever."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for name, tensor in self.module.state_dict().items():
            if tensor.is_floating_point():
                self.values[name].lerp_(tensor, 1 - decay)
            else:
                self.values[name].copy_(tensor)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The module holds the average inside, and its own weights again after."""
        own = {name: tensor.detach().clone() for name, tensor in self.module.state_dict().items()}
        self.module.load_state_dict(self.values)
        try:
            yield
        finally:
            self.module.load_state_dict(own)

    def state_dict(self) -> dict[str, object]:
        """What `load_state_dict` takes back."""
        return {"steps": self.steps, "values": self.values}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Continue from `state_dict`'s answer."""
        steps, values = state["steps"], state["values"]
        assert isinstance(steps, int)
        assert isinstance(values, dict)
        self.steps = steps
        for name, tensor in values.items():
            self.values[name].copy_(tensor)
