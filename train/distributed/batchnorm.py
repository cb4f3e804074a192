"""Synchronised batch normalisation: statistics over the batch of all processes."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import nn


class _Sum(torch.autograd.Function):
    """Differentiable all-reduce (sum)."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor) -> torch.Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        # The loss of every process depends on the sum, so the gradient is the sum over all processes.
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total


class SharedBatchNorm(nn.BatchNorm2d):
    """BatchNorm2d with statistics over the batch of all processes, on any device that supports all-reduce.

    torch.nn.SyncBatchNorm supports GPUs only.
    """

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) normalised."""
        if not self.training:
            return super().forward(maps)
        values = maps if maps.dtype == torch.float64 else maps.float()
        count = values.new_tensor(values.numel() // values.shape[1])
        total = _Sum.apply(torch.cat([values.sum((0, 2, 3)), count[None]]))
        count = total[-1].detach()
        centred = values - (mean := total[:-1] / count)[:, None, None]
        variance = _Sum.apply((centred * centred).sum((0, 2, 3))) / count
        with torch.no_grad():
            self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
            self.running_mean.lerp_(mean, self.momentum)  # type: ignore[union-attr,arg-type]
            # The running variance is the unbiased one, as in nn.BatchNorm2d.
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)  # type: ignore[union-attr,arg-type]
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(maps.dtype)


def share_batchnorm(model: nn.Module, device_type: str) -> nn.Module:
    """The model with synchronised BatchNorm layers; module names and weights do not change."""
    if device_type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for name, child in model.named_children():
        if type(child) is nn.BatchNorm2d:
            shared = SharedBatchNorm(child.num_features, child.eps, child.momentum)
            shared.load_state_dict(child.state_dict())
            setattr(model, name, shared)
        else:
            share_batchnorm(child, device_type)
    return model
