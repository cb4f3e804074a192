"""Batches made where the compute is: uint8 slices → augmented, normalised float32 tensors."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch.nn import functional as F

from runtime.preprocess import InputSpec


class Batches:
    """Iterable over (images (B, C, H, W) float32, labels (B,) int64) on one device.

    pixels: (N, channels, H, W) uint8. labels: (N,) int64.
    generator: draws the order and the augmentation; None keeps the order and augments nothing.
    """

    def __init__(
        self,
        pixels: torch.Tensor,
        labels: torch.Tensor,
        spec: InputSpec,
        batch_size: int,
        *,
        generator: torch.Generator | None = None,
        augment: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        assert not augment or generator is not None, "augmentation draws from a generator"
        self.pixels, self.labels, self.spec, self.batch_size = pixels, labels, spec, batch_size
        self.generator, self.augment, self.device = generator, augment, torch.device(device)

    def __len__(self) -> int:
        count = len(self.labels)
        # BatchNorm cannot train on a batch of one, so a shuffled epoch leaves such a remainder for the next one.
        lone = self.generator is not None and count > 1 and count % self.batch_size == 1
        return math.ceil(count / self.batch_size) - lone

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        count = len(self.labels)
        order = torch.arange(count) if self.generator is None else torch.randperm(count, generator=self.generator)
        for step in range(len(self)):
            chosen = order[step * self.batch_size : (step + 1) * self.batch_size]
            pixels = self.pixels[chosen].to(self.device, non_blocking=True).float().div_(255)
            if self.augment and self.generator is not None:
                pixels = augmented(pixels, self.generator)
            yield normalised(pixels, self.spec), self.labels[chosen].to(self.device, non_blocking=True)


def normalised(pixels: torch.Tensor, spec: InputSpec) -> torch.Tensor:
    """(B, spec.channels, H, W) float32 of (B, 1 or spec.channels, H, W) in [0, 1], as runtime.preprocess computes it.

    channels_last in memory, which is what convolutions on today's CPUs and tensor cores want.
    """
    mean = torch.tensor(spec.mean, device=pixels.device).view(1, -1, 1, 1)
    std = torch.tensor(spec.std, device=pixels.device).view(1, -1, 1, 1)
    return ((pixels - mean) / std).contiguous(memory_format=torch.channels_last)


def augmented(pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Slices as another head position and another scanner setting would have given them; same shape, in [0, 1].

    Rotation ±10°, shift ±4 % of the field of view, zoom ±8 %, left-right flip, gain ±15 %, gamma 0.85–1.18, noise
    up to 2 % of full scale. Left and right are exchangeable for this task; up and down are not, so they stay.
    """
    count, device = len(pixels), pixels.device

    def uniform(low: float, high: float) -> torch.Tensor:
        return (torch.rand(count, generator=generator) * (high - low) + low).to(device)

    angle, zoom = uniform(-10, 10) * (math.pi / 180), uniform(0.92, 1.08)
    flip = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    shift_x, shift_y = uniform(-0.08, 0.08), uniform(-0.08, 0.08)  # grid coordinates span 2
    theta = torch.stack([torch.stack([cos * flip, -sin, shift_x], 1), torch.stack([sin * flip, cos, shift_y], 1)], 1)
    grid = F.affine_grid(theta, list(pixels.shape), align_corners=False)
    moved = F.grid_sample(pixels, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    column = (count, 1, 1, 1)
    toned = (moved * uniform(0.85, 1.15).view(column)).clamp_(0, 1) ** uniform(0.85, 1.18).view(column)
    noise = torch.randn(toned.shape, generator=generator).to(device) * uniform(0, 0.02).view(column)
    return (toned + noise).clamp_(0, 1)
