"""`check_network`: whether the network of a recipe can be built and takes its image size, before any data is read."""

from __future__ import annotations

import torch

from stageproof.runtime.errors import InputError
from stageproof.runtime.networks.spec import NetworkSpec
from stageproof.train.foreign.imagenet import url
from stageproof.train.networks.construction import construct
from stageproof.train.recipes import Recipe

_LARGEST = 512
"""Image size up to which a smallest size is searched."""


def check_network(recipe: Recipe, weights: str = "none") -> int:
    """Number of parameters of the recipe's network, which is built and run on the meta device, without memory.

    Raises CheckpointError for an unknown architecture or for ImageNet weights that torchvision does not have;
    InputError for a head, a number of channels or an image size that the network cannot have.
    """
    network = recipe.network(2)
    with torch.device("meta"):
        model = construct(network)
    if weights == "imagenet":
        url(network.architecture)
    if problem := _problem(network):
        least = _smallest(network)
        advice = f"Use --image-size {least} or more." if least else "Use another --image-size or --architecture."
        raise InputError(
            f"{network.architecture} cannot take images of {recipe.image_size} × {recipe.image_size} pixels: "
            f"{problem}. {advice}"
        )
    return sum(tensor.numel() for tensor in model.parameters())


def _problem(network: NetworkSpec) -> str | None:
    """Why a batch of this size cannot be computed; None if it can."""
    size = network.image_size
    assert size is not None, "a recipe has an image size"
    with torch.device("meta"), torch.inference_mode():
        model = construct(network).eval()
        try:
            model(torch.empty(2, network.channels, size, size))
        except (RuntimeError, AssertionError, ValueError) as error:
            return str(error).strip().splitlines()[0].rstrip(".")
    return None


def _smallest(network: NetworkSpec) -> int | None:
    """The smallest image size that the network takes, by bisection; None if it takes not even `_LARGEST`."""
    from dataclasses import replace

    low, high = network.image_size or 1, _LARGEST
    if _problem(replace(network, image_size=high)):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _problem(replace(network, image_size=middle)) else (low, middle)
    return high
