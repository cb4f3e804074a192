"""Stateless random seeds: each one is derived from the seed of the run and from where it is used.

There is no generator state to save. The order of the slices, the augmentation and the dropout masks are therefore the
same in an uninterrupted and in a resumed run, and on one device and on several.
"""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import nn
from torchvision.ops import StochasticDepth


def derive(seed: int, *where: int | str) -> int:
    """A seed in [0, 2^63): the BLAKE2b digest of the seed of the run and of `where`, which identifies the use."""
    name = "\0".join(map(str, (seed, *where))).encode()
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little") >> 1


def generator(seed: int, *where: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A new torch.Generator seeded with `derive(seed, *where)`."""
    return torch.Generator(device).manual_seed(derive(seed, *where))


class SeededDropout(nn.Dropout):
    """nn.Dropout whose mask depends only on the step and on the position of a slice in the batch over all devices."""

    def __init__(self, p: float) -> None:
        super().__init__(p)
        self.seed, self.count, self.rows = 0, 0, slice(0)

    @torch.compiler.disable
    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """The values with dropout: zero with probability `p`, else scaled by 1 / (1 - p); unchanged in eval mode."""
        if not self.training or self.p == 0:
            return values
        draw = torch.Generator(values.device).manual_seed(self.seed)
        chance = torch.rand((self.count, *values.shape[1:]), generator=draw, device=values.device)[self.rows]
        return values * (chance >= self.p) / (1 - self.p)


class SeededStochasticDepth(StochasticDepth):  # type: ignore[misc, unused-ignore]
    """torchvision's StochasticDepth whose choice depends only on the step and, in mode ``row``, on the position of a
    slice in the batch over all devices."""

    def __init__(self, p: float, mode: str) -> None:
        super().__init__(p, mode)
        self.seed, self.count, self.rows = 0, 0, slice(0)

    @torch.compiler.disable
    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """The values of a residual branch: zero with probability `p` for a slice (mode ``row``) or for the whole batch,
        else scaled by 1 / (1 - p); unchanged in eval mode."""
        if not self.training or self.p == 0:
            return values
        draw = torch.Generator(values.device).manual_seed(self.seed)
        count = self.count if self.mode == "row" else 1
        chance = torch.rand((count, *[1] * (values.ndim - 1)), generator=draw, device=values.device)
        kept = (chance[self.rows] if self.mode == "row" else chance) >= self.p
        return values * kept / (1 - self.p) if self.p < 1 else values * kept


def seed_dropouts(model: nn.Module) -> None:
    """Replace each nn.Dropout and StochasticDepth in `model` by the seeded one, in place; module names and weights do
    not change."""
    child: Any
    for name, child in model.named_children():
        if type(child) is nn.Dropout:
            setattr(model, name, SeededDropout(child.p))
        elif type(child) is StochasticDepth:
            setattr(model, name, SeededStochasticDepth(float(child.p), str(child.mode)))  # type: ignore[arg-type]
        else:
            seed_dropouts(child)


def place_dropouts(model: nn.Module, seed: int, count: int, rows: slice) -> None:
    """Set the mask of each seeded module for the next forward pass.

    seed: of this step. count: size of the batch over all devices. rows: the part of it in the next forward pass.
    """
    seeded = (module for module in model.modules() if isinstance(module, SeededDropout | SeededStochasticDepth))
    for index, module in enumerate(seeded):
        module.seed, module.count, module.rows = derive(seed, index), count, rows
