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
    schedule: Literal["constant", "cosine", "one-cycle"] = "constant"
    """Learning rate over the stage: level, or down to zero as a cosine; one-cycle (Smith 2018) first rises from 4 %."""
    warmup: float | None = None
    """Share of the steps over which the rate rises to its peak. None: 0.25 for one-cycle, none for the others."""
    augment: bool = True
    """Small rotations, shifts, zooms, flips and intensity changes, fit for axial slices."""


@dataclass(frozen=True)
class Recipe:
    """Everything that decides which model comes out, apart from the data."""

    name: Annotated[str, tyro.conf.Suppress]
    """The recipe these values started from."""
    architecture: Annotated[Literal["resnet50", "resnet34-gray"], tyro.conf.Suppress]
    """Network: resnet50 has the head 2048→512→ReLU→Dropout(0.3)→512→4; resnet34-gray has one input channel."""
    image_size: int
    """Height and width of the network's input, pixels."""
    batch_size: int
    """Slices a step, over all devices together."""
    head: Stage
    """Stage 1: the head alone, on a frozen backbone whose BatchNorm statistics do not move."""
    full: Stage
    """Stage 2: every parameter."""
    normalise: Literal["imagenet", "training-set"] = "imagenet"
    """Mean and standard deviation of the input: ImageNet's, or those of the slices that are trained on."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """AdamW (decoupled weight decay), or SGD with momentum."""
    momentum: float = 0.9
    """SGD's."""
    weight_decay: float = 0.01
    """On every parameter."""
    clip_norm: float = 1.0
    """Largest gradient norm, over all parameters; 0 does not clip."""
    label_smoothing: float = 0.0
    """Share of each target spread evenly over the classes, in [0, 1)."""
    imbalance: Literal["none", "weights", "sampling"] = "none"
    """weights: the loss counts each class alike; sampling: slices are drawn so that each class comes alike."""
    ema: float = 0.0
    """Decay of a moving average of the weights, which is then validated and kept; 0 is off, 0.999 is usual."""
    keep: Literal["last", "loss", "accuracy", "balanced_accuracy", "patient_accuracy"] = "last"
    """Which epoch's weights a stage ends with: the last, or the best on a third part of the data, which is neither
    trained on nor reported."""
    patience: int = 0
    """Epochs without a better figure (loss, or what keep names) on that third part after which a stage ends; 0: never
    early."""

    @property
    def selects(self) -> bool:
        """Whether an epoch is selected, which takes patients of its own."""
        return self.keep != "last" or self.patience > 0


def _resnet50_two_stage(pretrained: bool) -> Recipe:
    # 1e-5 fine-tunes pretrained weights; from random ones it would learn nothing, so scratch runs anneal from 1e-3.
    full = Stage(10, 1e-5) if pretrained else Stage(10, 1e-3, schedule="one-cycle")
    head = Stage(5 if pretrained else 1, 1e-3, augment=False)
    return Recipe("resnet50-two-stage", "resnet50", image_size=224, batch_size=32, head=head, full=full)


def _resnet34_gray(pretrained: bool) -> Recipe:
    return Recipe(
        "resnet34-gray",
        "resnet34-gray",
        image_size=224,
        batch_size=16,
        head=Stage(0, 0.01, augment=False),
        full=Stage(7, 0.01, augment=False),
        normalise="training-set",
        optimizer="sgd",
        weight_decay=0.001,
        clip_norm=0.0,
    )


def _demo(pretrained: bool) -> Recipe:
    # As short and as small as still tells most of the people who were held out: it shows what the commands do.
    full = Stage(6, 1e-4) if pretrained else Stage(6, 1e-3, schedule="one-cycle")
    head = Stage(1, 1e-3, augment=False)
    return Recipe("demo", "resnet50", image_size=32, batch_size=32, head=head, full=full)


RECIPES: dict[str, Callable[[bool], Recipe]] = {
    "resnet50-two-stage": _resnet50_two_stage,
    "resnet34-gray": _resnet34_gray,
    "demo": _demo,
}
"""Name → recipe for pretrained (True) or random (False) initial weights."""

FOLDS = {"resnet34-gray": "1/10"}
"""Recipes whose published validation share is not a fifth."""
