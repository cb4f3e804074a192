"""What is trained and how: frozen dataclasses, and the named recipes made of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro


@dataclass(frozen=True)
class Stage:
    """One pass of optimisation with one set of trainable parameters."""

    epochs: int
    """Passes over the training slices; 0 leaves the stage out."""
    learning_rate: float
    """Peak learning rate."""
    schedule: Literal["constant", "one-cycle"] = "constant"
    """Learning rate over the stage; one-cycle (Smith 2018) warms up and anneals to zero."""
    augment: bool = True
    """Small rotations, shifts, zooms, flips and intensity changes, fit for axial slices."""


@dataclass(frozen=True)
class Recipe:
    """Everything that decides which model comes out, apart from the data."""

    name: Annotated[str, tyro.conf.Suppress]
    """The recipe these values started from."""
    architecture: Annotated[Literal["resnet50"], tyro.conf.Suppress]
    """Network: resnet50 has the head 2048→512→ReLU→Dropout(0.3)→512→4."""
    image_size: int
    """Height and width of the network's input, pixels."""
    batch_size: int
    """Slices a step."""
    head: Stage
    """Stage 1: the head alone, on a frozen backbone whose BatchNorm statistics do not move."""
    full: Stage
    """Stage 2: every parameter."""
    weight_decay: float = 0.01
    """AdamW's decoupled weight decay."""
    clip_norm: float = 1.0
    """Largest gradient norm, over all parameters."""


def _resnet50_two_stage(pretrained: bool) -> Recipe:
    # 1e-5 fine-tunes pretrained weights; from random ones it would learn nothing, so scratch runs anneal from 1e-3.
    full = Stage(10, 1e-5) if pretrained else Stage(10, 1e-3, schedule="one-cycle")
    head = Stage(5 if pretrained else 1, 1e-3, augment=False)
    return Recipe("resnet50-two-stage", "resnet50", image_size=224, batch_size=32, head=head, full=full)


def _demo(pretrained: bool) -> Recipe:
    full = Stage(6, 1e-4) if pretrained else Stage(18, 1e-3, schedule="one-cycle")
    head = Stage(1, 1e-3, augment=False)
    return Recipe("demo", "resnet50", image_size=64, batch_size=32, head=head, full=full)


RECIPES: dict[str, Callable[[bool], Recipe]] = {"resnet50-two-stage": _resnet50_two_stage, "demo": _demo}
"""Name → recipe for pretrained (True) or random (False) initial weights."""
