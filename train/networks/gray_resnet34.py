"""`GrayResNet34`, with the same module names as the published checkpoints."""

from __future__ import annotations

import torch
from torch import nn


class GrayResNet34(nn.Module):
    """The ResNet34 of a widely copied tutorial, there with one channel: (N, channels, H, W) images to (N, classes)
    logits.

    It differs from He et al. 2015, table 1, in that convolutions have a bias; layers are numbered from 0.
    """

    def __init__(self, classes: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(channels, 64, 7, 2, 3), nn.BatchNorm2d(64), nn.ReLU())
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer0 = _layer(64, 64, 3, 1)
        self.layer1 = _layer(64, 128, 4, 2)
        self.layer2 = _layer(128, 256, 6, 2)
        self.layer3 = _layer(256, 512, 3, 2)
        # Equals the published AvgPool2d(7) at 224 × 224, the only size at which that one works.
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(512, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, classes) logits of (N, channels, H, W) images."""
        maps = self.maxpool(self.conv1(images))
        maps = self.layer3(self.layer2(self.layer1(self.layer0(maps))))
        return self.fc(torch.flatten(self.avgpool(maps), 1))


class _Block(nn.Module):
    """Residual block with two 3 × 3 convolutions."""

    def __init__(self, channels_in: int, channels: int, stride: int, downsample: nn.Module | None) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(channels_in, channels, 3, stride, 1), nn.BatchNorm2d(channels), nn.ReLU())
        self.conv2 = nn.Sequential(nn.Conv2d(channels, channels, 3, 1, 1), nn.BatchNorm2d(channels))
        self.downsample = downsample
        self.relu = nn.ReLU()

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        shortcut = maps if self.downsample is None else self.downsample(maps)
        return self.relu(self.conv2(self.conv1(maps)) + shortcut)


def _layer(channels_in: int, channels: int, blocks: int, stride: int) -> nn.Sequential:
    shortcut = None
    if stride != 1 or channels_in != channels:
        shortcut = nn.Sequential(nn.Conv2d(channels_in, channels, 1, stride), nn.BatchNorm2d(channels))
    rest = [_Block(channels, channels, 1, None) for _ in range(blocks - 1)]
    return nn.Sequential(_Block(channels_in, channels, stride, shortcut), *rest)
