"""`Batches`: augmented and normalised float32 batches, computed on the device from uint8 slices."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.nn import functional as F

from stageproof.runtime.preprocess import InputSpec, standardise
from stageproof.train.distributed.process_group import ProcessGroup
from stageproof.train.seeds import derive, generator


@dataclass(frozen=True)
class Batch:
    """The part of a batch that one process trains on."""

    inputs: torch.Tensor
    """(B, C, H, W) float32 images, or (B, F) float32 features, on the device."""
    labels: torch.Tensor
    """(B,) int64, on the device."""
    rows: slice
    """Rows of the whole batch that this part consists of."""
    all_labels: torch.Tensor
    """Labels of the whole batch over all processes, on the CPU."""
    partners: torch.Tensor | None = None
    """(B,) int64 labels of the slices mixed into `inputs`, on the device; None without MixUp."""
    share: float = 1.0
    """Share of the slices themselves in `inputs`, in [0, 1]; the rest is that of their partners."""


class Batches:
    """Batches of the slices of one part of a split.

    inputs: (N, channels, H, W) uint8 images, or (N, F) float32 features of a frozen backbone.
    labels: (N,) int64.
    spec: normalisation of images; None for features, which are not normalised.
    batch_size: summed over all processes.
    chosen: (K,) int64, rows to use; None: all.
    mixup: alpha of MixUp (Zhang et al. 2018), as `train.recipes.Recipe.mixup`.
    """

    def __init__(
        self,
        inputs: torch.Tensor,
        labels: torch.Tensor,
        spec: InputSpec | None,
        batch_size: int,
        *,
        chosen: torch.Tensor | None = None,
        seed: int = 0,
        augment: bool = False,
        balanced: bool = False,
        mixup: float = 0.0,
        processes: ProcessGroup | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.inputs, self.labels, self.spec, self.batch_size = inputs, labels, spec, batch_size
        self.chosen = torch.arange(len(labels)) if chosen is None else chosen
        self.seed, self.augment, self.balanced, self.mixup = seed, augment, balanced, mixup
        self.processes, self.device = processes or ProcessGroup(), torch.device(device)

    def __len__(self) -> int:
        """Number of batches in an epoch."""
        return math.ceil(len(self.chosen) / self.batch_size)

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """This process's part of each batch of epoch `number`, shuffled, starting at batch `start`.

        Each slice occurs once; with `balanced`, slices are drawn with replacement such that classes are equally
        likely. Batch sizes differ by at most one: slices of a smaller last batch would have more weight, and BatchNorm
        cannot train on a single slice.
        """
        order = self._order(number)
        small, extra = divmod(len(order), len(self))
        for step in range(start, len(self)):
            first = step * small + min(step, extra)
            batch = order[first : first + small + (step < extra)]
            rows = self.processes.share(len(batch))
            mine = np.arange(rows.start, rows.stop)
            part = self._load(batch, rows, self._seeds(number, first + mine))
            yield self._mixed(part, batch, number, step, first) if self.mixup else part

    def in_order(self) -> Iterator[Batch]:
        """Batches of this process's part of all slices, in order and without augmentation."""
        mine = self.chosen[self.processes.share(len(self.chosen))]
        for part in mine.split(max(1, self.batch_size // self.processes.size)):
            yield self._load(part, slice(0, len(part)), None)

    def _order(self, epoch: int) -> torch.Tensor:
        draw = generator(self.seed, "order", epoch)
        if not self.balanced:
            return self.chosen[torch.randperm(len(self.chosen), generator=draw)]
        labels = self.labels[self.chosen]
        chance = 1.0 / torch.bincount(labels)[labels].double()
        return self.chosen[torch.multinomial(chance, len(labels), replacement=True, generator=draw)]

    def _seeds(self, epoch: int, places: np.ndarray) -> list[int] | None:
        """The seed of the augmentation at each place in the epoch, whichever process computes it."""
        return [derive(self.seed, "augment", epoch, int(place)) for place in places] if self.augment else None

    def _mixed(self, part: Batch, batch: torch.Tensor, epoch: int, step: int, first: int) -> Batch:
        """The part of a batch with MixUp: every slice is mixed with that at its place in a permutation of the whole
        batch, all with the same share, drawn from Beta(alpha, alpha).

        first: place of the batch in the epoch. A partner is augmented as it is at its own place. The labels of all
        partners are those of the whole batch, permuted, so that their class weights have the same sum.
        """
        rng = np.random.default_rng(derive(self.seed, "mixup", epoch, step))
        share, partners = float(rng.beta(self.mixup, self.mixup)), rng.permutation(len(batch))[part.rows]
        chosen = torch.from_numpy(partners)
        if len(part.labels) == len(batch):
            others = part.inputs[chosen.to(self.device)]
        else:  # a partner may be in the part of another process
            others = self._inputs(batch[chosen], self._seeds(epoch, first + partners))
        inputs = part.inputs.mul_(share).add_(others, alpha=1.0 - share)
        return replace(part, inputs=inputs, partners=part.all_labels[chosen].to(self.device), share=share)

    def _load(self, batch: torch.Tensor, rows: slice, seeds: list[int] | None) -> Batch:
        labels, inputs = self.labels[batch], self._inputs(batch[rows], seeds)
        return Batch(inputs, labels[rows].to(self.device, non_blocking=True), rows, labels)

    def _inputs(self, rows: torch.Tensor, seeds: list[int] | None) -> torch.Tensor:
        """Images or features of these rows, on the device."""
        inputs = self.inputs[rows.to(self.inputs.device)].to(self.device, non_blocking=True)
        if self.spec is not None:
            inputs = inputs.float()
            torch.divide(inputs, torch.full((), 255.0, device=inputs.device), out=inputs)
            if seeds is not None:
                inputs = augmented(inputs, seeds)
            inputs = normalised(inputs, self.spec)
        return inputs


def channel_statistics(
    pixels: np.ndarray, chosen: np.ndarray, channels: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel over the pixels of the `chosen` slices, scaled to [0, 1].

    pixels: (N, 1 or channels, H, W) uint8. The standard deviation of constant images is returned as 1.
    """
    counts = np.zeros((pixels.shape[1], 256), np.int64)
    for index in chosen:
        for channel, plane in enumerate(pixels[index]):
            counts[channel] += np.bincount(plane.ravel(), minlength=256)
    values = np.arange(256) / 255
    mean = counts @ values / counts.sum(1)
    std = np.sqrt(np.maximum(counts @ values**2 / counts.sum(1) - mean**2, 0))
    std = np.where(std > 0, std, 1.0)
    repeat = channels // len(mean)
    return tuple(map(float, np.repeat(mean, repeat))), tuple(map(float, np.repeat(std, repeat)))


def normalised(pixels: torch.Tensor, spec: InputSpec) -> torch.Tensor:
    """(B, spec.channels, H, W) float32, normalised as in runtime.preprocess. pixels: (B, 1 or spec.channels, H, W) in
    [0, 1].

    The memory format is channels_last, which is faster for convolutions on CPUs and tensor cores.
    """
    count, given, height, width = pixels.shape
    out = torch.empty(count, height, width, spec.channels, device=pixels.device).permute(0, 3, 1, 2)
    between = torch.empty(count, height, width, device=pixels.device)
    # One channel at a time: an operation over all channels would have an inner loop of three elements.
    for channel in range(spec.channels):
        mean, std = (torch.full((), values[channel], device=pixels.device) for values in (spec.mean, spec.std))
        standardise(pixels[:, channel if given > 1 else 0], mean, std, between, out[:, channel], torch)
    return out


def augmented(pixels: torch.Tensor, seeds: list[int]) -> torch.Tensor:
    """Randomly augmented slices, same shape, in [0, 1].

    seeds: one for each slice, so that its augmentation does not depend on the other slices of the batch.

    Rotation ±10°, shift ±4 % of the field of view, zoom ±8 %, left-right flip, gain ±15 %, gamma 0.85–1.18, noise
    up to 2 % of full scale. There is no up-down flip, since only left and right are exchangeable for this task.
    """
    device = pixels.device
    draws = torch.stack([torch.rand(8, generator=torch.Generator().manual_seed(seed)) for seed in seeds]).to(device)

    def uniform(column: int, low: float, high: float) -> torch.Tensor:
        return draws[:, column] * (high - low) + low

    angle, zoom = uniform(0, -10, 10) * (math.pi / 180), uniform(1, 0.92, 1.08)
    flip = torch.where(draws[:, 2] < 0.5, -1.0, 1.0)
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    shift_x, shift_y = uniform(3, -0.08, 0.08), uniform(4, -0.08, 0.08)  # grid coordinates span 2
    theta = torch.stack([torch.stack([cos * flip, -sin, shift_x], 1), torch.stack([sin * flip, cos, shift_y], 1)], 1)
    moved = F.grid_sample(pixels, _grid(theta, *pixels.shape[2:]), padding_mode="zeros", align_corners=False)
    column = (len(pixels), 1, 1, 1)
    toned = (moved * uniform(5, 0.85, 1.15).view(column)).clamp_(0, 1) ** uniform(6, 0.85, 1.18).view(column)
    return (toned + _noise(toned, seeds) * uniform(7, 0, 0.02).view(column)).clamp_(0, 1)


def _grid(theta: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """As torch's `affine_grid` for (B, 2, 3) `theta`, computed as a sum of rows and columns, without matrix product."""
    across, down = ((torch.arange(size, device=theta.device) * 2 + 1) / size - 1 for size in (width, height))
    grid = torch.empty(len(theta), height, width, 2, device=theta.device)
    for axis in (0, 1):
        row, column = theta[:, axis, :1] * across, theta[:, axis, 1:2] * down + theta[:, axis, 2:]
        torch.add(row[:, None, :], column[:, :, None], out=grid[..., axis])
    return grid


def _noise(like: torch.Tensor, seeds: list[int]) -> torch.Tensor:
    """Standard normal noise, generated on the device: copying it from the CPU would take longer than the slices."""
    noise, draw = torch.empty_like(like), torch.Generator(like.device)
    for row, seed in zip(noise, seeds, strict=True):
        row.normal_(generator=draw.manual_seed(seed))
    return noise
