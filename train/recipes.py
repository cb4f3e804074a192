"""Training hyperparameters: the dataclasses `Stage` and `Recipe`, and the named recipes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Annotated, Any, Literal

import tyro

from stageproof.runtime.errors import InputError
from stageproof.runtime.networks.spec import NetworkSpec


@dataclass(frozen=True)
class Stage:
    """Hyperparameters of one training stage, which has one set of trainable parameters."""

    epochs: int
    """Number of epochs; 0 skips the stage."""
    learning_rate: float
    """Peak learning rate."""
    schedule: Literal["constant", "cosine", "one-cycle"] = "constant"
    """Learning rate over the stage: constant, cosine annealing to zero, or one-cycle (Smith 2018; from 4 % of peak)."""
    warmup: float | None = None
    """Share of the steps in which the learning rate rises to its peak. None: 0.25 for one-cycle, 0 for the others."""
    augment: bool = True
    """Augment training slices with small rotations, shifts, zooms, left-right flips and intensity changes."""
    restarts: tuple[int, ...] = ()
    """Epochs after which the schedule starts again from its beginning (warm restarts, Loshchilov and Hutter 2017)."""


@dataclass(frozen=True)
class Recipe:
    """Network and hyperparameters: with the data and the seed, they determine the trained model."""

    name: Annotated[str, tyro.conf.Suppress]
    """Name of the recipe that gives the defaults."""
    architecture: str
    """Network: resnet34-gray, or torchvision's name of a classification network, such as resnet18, densenet121,
    efficientnet_b0, convnext_tiny or vit_b_16."""
    image_size: int
    """Height and width of the network input, pixels."""
    batch_size: int
    """Batch size, summed over all devices."""
    head: Stage
    """Stage 1 trains only the head; the backbone and its BatchNorm statistics are frozen."""
    full: Stage
    """Stage 2 trains all parameters."""
    head_type: Literal["linear", "two-layer"] | None = None
    """Head: one fully connected layer, or features→512→ReLU→Dropout(0.3)→512→classes.
    None: linear, but two-layer for resnet50, as published."""
    channels: Literal[1, 3] | None = None
    """Input channels. None: 3, but 1 for resnet34-gray. With pretrained weights and 1 channel, the first convolution
    has the mean of its weights over the three channels."""
    normalise: Literal["imagenet", "training-set"] = "imagenet"
    """Mean and standard deviation for input normalisation: ImageNet's, or those of the training slices."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """AdamW (decoupled weight decay) or SGD with momentum."""
    momentum: float = 0.9
    """Momentum of SGD."""
    weight_decay: float = 0.01
    """Weight decay, applied to all parameters."""
    clip_norm: float = 1.0
    """Maximum norm of the gradient over all parameters; 0: no clipping."""
    label_smoothing: float = 0.0
    """Label smoothing, as in torch.nn.CrossEntropyLoss, in [0, 1)."""
    mixup: float = 0.0
    """MixUp (Zhang et al. 2018): each slice is mixed with another one of its batch, and so are their labels.
    The value is alpha, the parameter of the Beta distribution of the shares; 0: off; 0.1 to 0.4 are usual.
    Stage 1 then computes the features of the backbone in every step, which is slower."""
    imbalance: Literal["none", "weights", "sampling"] = "none"
    """Handling of class imbalance. weights: class weights in the loss, so that all classes have equal total weight.
    sampling: slices are drawn so that all classes are equally frequent."""
    ema: float = 0.0
    """Decay of an exponential moving average of the weights; 0: no average; 0.999 is usual.
    The average is validated and saved instead of the weights themselves."""
    keep: Literal["last", "loss", "accuracy", "balanced_accuracy", "patient_accuracy"] = "last"
    """Epoch whose weights are kept at the end of a stage: the last, or the best by this metric on a selection set.
    The selection set has other patients than training and validation."""
    patience: int = 0
    """Early stopping: end a stage after this many epochs without improvement on the selection set; 0: never.
    The metric is that of --keep, or the loss with --keep last."""

    def network(self, classes: int) -> NetworkSpec:
        """The network of this recipe. Raises InputError for values that no network has."""
        try:
            return NetworkSpec.of(self.architecture, classes, self.channels, self.head_type, self.image_size)
        except ValueError as error:
            raise InputError(str(error)) from error

    @property
    def selects(self) -> bool:
        """Whether epochs are selected or training stops early, which needs a selection set of other patients."""
        return self.keep != "last" or self.patience > 0


def same_recipe(one: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> bool:
    """Whether two recipes as in `run.json` are the same; what an earlier version did not record has its default."""
    return _filled(one, Recipe) == _filled(other, Recipe)


def _filled(recorded: Mapping[str, Any] | None, kind: type) -> dict[str, Any] | None:
    if recorded is None:
        return None
    known = {field.name: field.default for field in fields(kind) if field.default is not MISSING} | dict(recorded)
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in known.items()}
    return {name: _filled(value, Stage) if isinstance(value, Mapping) else value for name, value in plain.items()}


def _resnet50_two_stage(pretrained: bool) -> Recipe:
    # 1e-5 fine-tunes pretrained weights. It is too small to train random weights, which are annealed from 1e-3.
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
    # The shortest training and smallest input that still classify most held-out phantoms correctly, for a quick demo.
    full = Stage(6, 1e-4) if pretrained else Stage(6, 1e-3, schedule="one-cycle")
    head = Stage(1, 1e-3, augment=False)
    return Recipe("demo", "resnet50", image_size=32, batch_size=32, head=head, full=full)


RECIPES: dict[str, Callable[[bool], Recipe]] = {
    "resnet50-two-stage": _resnet50_two_stage,
    "resnet34-gray": _resnet34_gray,
    "demo": _demo,
}
"""Name → function of whether the initial weights are pretrained (True) or random (False), which returns the recipe."""

FOLDS = {"resnet34-gray": "1/10"}
"""Default --fold of recipes whose published validation share is not one fifth."""
