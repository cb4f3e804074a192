"""`build`: an untrained network by name."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import cast

import torch
from torch import nn

from stageproof.runtime.errors import CheckpointError
from stageproof.runtime.networks import torchvision_models
from stageproof.runtime.networks.spec import NetworkSpec, hidden_units
from stageproof.train.networks.gray_resnet34 import GrayResNet34

ARCHITECTURES: dict[str, Callable[[int, int], nn.Module]] = {"resnet34-gray": GrayResNet34}
"""Networks that are not torchvision's: name → function of (classes, channels), whose network has a linear head."""


def build(
    architecture: str,
    classes: int,
    channels: int | None = None,
    head: str | None = None,
    image_size: int | None = None,
) -> nn.Module:
    """An untrained network: (N, channels, H, W) images to (N, classes) logits. Also on the meta device.

    architecture: ``resnet34-gray``, or torchvision's name of a classification network.
    channels: 1 or 3; None: 3, and 1 for resnet34-gray.
    head: ``linear`` or ``two-layer``; None: linear, and two-layer for resnet50, as published.
    image_size: height and width, pixels, which ViT and MaxViT are built for; None: 224.

    Raises CheckpointError for an unknown name, with the closest ones, and for what the network cannot have.
    """
    try:
        return construct(NetworkSpec.of(architecture, classes, channels, head, image_size))
    except ValueError as error:
        raise CheckpointError(str(error)) from error


def construct(spec: NetworkSpec) -> nn.Module:
    """The untrained network of `spec`. Raises CheckpointError as `build` does."""
    try:
        own = ARCHITECTURES.get(spec.architecture)
        if own is None:
            return cast(nn.Module, torchvision_models.construct(spec))
        model = own(spec.classes, spec.channels)
        if (hidden := hidden_units(spec.head)) is not None:
            torchvision_models.replace_head(model, spec.architecture, spec.classes, hidden)
        return model
    except ValueError as error:
        raise CheckpointError(str(error)) from error


def load_state(model: nn.Module, state: Mapping[str, torch.Tensor], strict: bool = True) -> None:
    """`model.load_state_dict(state)` for a plain dict of tensors with the current names, as safetensors and our
    checkpoints have them. Its versions, without which MNASNet refuses any state, are those of the model itself."""
    current = OrderedDict(state)
    current._metadata = model.state_dict()._metadata  # type: ignore[attr-defined]
    model.load_state_dict(current, strict=strict)


def head_of(model: nn.Module) -> nn.Module:
    """The classification head: `fc` of a ResNet, `classifier.1` of an EfficientNet, `heads.head` of a ViT."""
    return model.get_submodule(torchvision_models.head_name(model))
