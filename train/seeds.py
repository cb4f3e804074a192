"""Every random number of a run follows from its seed and from where it is used, so none has a state to lose.

The order of an epoch, a slice's augmentation and a step's dropout are the same in a run that was never interrupted
and in one that was, on one device and on several.
"""

from __future__ import annotations

import hashlib

import torch
from torch import nn


def derive(seed: int, *where: int | str) -> int:
    """A seed in [0, 2^63) for one use: BLAKE2b of the run's seed and of what names the use."""
    name = "\0".join(map(str, (seed, *where))).encode()
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little") >> 1


def generator(seed: int, *where: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator that starts from `derive(seed, *where)`."""
    return torch.Generator(device).manual_seed(derive(seed, *where))


class SeededDropout(nn.Dropout):
    """nn.Dropout whose mask follows from the step, and from a slice's place in the batch of all devices together."""

    def __init__(self, p: float) -> None:
        super().__init__(p)
        self.seed, self.count, self.rows = 0, 0, slice(0)

    @torch.compiler.disable
    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """The values with a share `p` of them set to zero and the others scaled to keep the mean; as is in eval."""
        if not self.training or self.p == 0:
            return values
        draw = torch.Generator(values.device).manual_seed(self.seed)
        chance = torch.rand((self.count, *values.shape[1:]), generator=draw, device=values.device)[self.rows]
        return values * (chance >= self.p) / (1 - self.p)


def seed_dropouts(model: nn.Module) -> None:
    """Replace each nn.Dropout in `model`, in place; names and weights stay."""
    for name, child in model.named_children():
        if type(child) is nn.Dropout:
            setattr(model, name, SeededDropout(child.p))
        else:
            seed_dropouts(child)


def place_dropouts(model: nn.Module, seed: int, count: int, rows: slice) -> None:
    """Tell each SeededDropout which `rows` of a batch of `count` come next; `seed` names the step."""
    for index, module in enumerate(module for module in model.modules() if isinstance(module, SeededDropout)):
        module.seed, module.count, module.rows = derive(seed, index), count, rows
