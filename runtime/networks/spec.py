"""`NetworkSpec`: what a network is rebuilt from. Does not import torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

HEADS = ("linear", "two-layer")
"""linear: one fully connected layer. two-layer: features → 512 → ReLU → Dropout(0.3) → 512 → classes."""
HIDDEN = 512
"""Units of the hidden layer of the two-layer head."""
CHANNELS = (1, 3)
"""Supported numbers of input channels."""
_DEFAULT_HEADS = {"resnet50": "two-layer"}
_DEFAULT_CHANNELS = {"resnet34-gray": 1}


@dataclass(frozen=True)
class NetworkSpec:
    """A network without its weights: `build` makes the same layers, with the same names, from the same fields."""

    architecture: str
    """``resnet34-gray``, or torchvision's name of a classification network, such as ``densenet121``."""
    classes: int
    channels: int
    """Input channels: 1 or 3."""
    head: str
    """One of `HEADS`, or ``two-layer-WIDTH`` with another number of hidden units, which only checkpoints have."""
    image_size: int | None = None
    """Height and width of the input, pixels. Only the layers of ViT and MaxViT depend on it; None: 224 for these."""

    @classmethod
    def of(
        cls,
        architecture: str,
        classes: int,
        channels: int | None = None,
        head: str | None = None,
        image_size: int | None = None,
    ) -> NetworkSpec:
        """The specification with the architecture's defaults for None: 3 channels (resnet34-gray: 1) and a linear head
        (resnet50: two-layer). Raises ValueError for other values than those of `HEADS` and `CHANNELS`, and for fewer
        than two classes."""
        channels = default_channels(architecture) if channels is None else channels
        head = default_head(architecture) if head is None else head
        if classes < 2:
            raise ValueError(f"a classifier of {classes} classes, expected 2 or more.")
        if channels not in CHANNELS:
            raise ValueError(f"{channels} input channels, expected 1 (grey) or 3 (RGB).")
        if not is_head(head):
            raise ValueError(f"the head {head!r}, expected {' or '.join(HEADS)}.")
        return cls(architecture, classes, channels, head, image_size)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; `from_dict` reads it back exactly."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> NetworkSpec:
        """Raises KeyError for a missing field, ValueError as `of` does."""
        fields = (data["architecture"], data["classes"], data["channels"], data["head"])
        return cls.of(*fields, data.get("image_size"))


def default_channels(architecture: str) -> int:
    """Input channels if none are named: those of the published weights."""
    return _DEFAULT_CHANNELS.get(architecture, 3)


def default_head(architecture: str) -> str:
    """The head if none is named: that of the published checkpoints."""
    return _DEFAULT_HEADS.get(architecture, "linear")


def two_layer(hidden: int) -> str:
    """Name of the two-layer head with `hidden` units."""
    return "two-layer" if hidden == HIDDEN else f"two-layer-{hidden}"


def hidden_units(head: str) -> int | None:
    """Hidden units of a two-layer head; None for a linear one."""
    match = re.fullmatch(r"two-layer(?:-([1-9]\d{0,4}))?", head)
    return None if match is None else int(match[1] or HIDDEN)


def is_head(head: str) -> bool:
    """Whether a network can have the head."""
    return head in HEADS or ((hidden := hidden_units(head)) is not None and two_layer(hidden) == head)
