"""Converts the reference to half precision: float32 input and output, fp16 or bf16 computation."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.fx.experimental.optimization import fuse

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class Lowered(nn.Module):
    """(N, C, H, W) float32 → (N, classes) float32, computed in `dtype`."""

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.model = model
        self.dtype = dtype

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.model(images.to(self.dtype)).to(torch.float32)


def lowered(model: nn.Module, precision: str) -> nn.Module:
    """The model for `precision`: the model itself for fp32, else a copy that computes in that type.

    BatchNorm is first folded into the convolutions in float32, since its statistics lose too much in half precision.
    """
    if precision == "fp32":
        return model
    dtype = DTYPES[precision]
    return Lowered(fuse(copy.deepcopy(model)).to(dtype), dtype).eval()
