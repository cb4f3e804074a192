"""Where a network starts from: random, a file, or torchvision's ImageNet weights."""

from __future__ import annotations

import warnings
from pathlib import Path
from urllib.error import URLError

import torch
from torch import nn

from runtime.errors import CheckpointError
from train.checkpoint import load_weights
from train.models import build
from train.weight_files import read_state

_ADVICE = "Train with the --recipe of its network, or leave --weights out."


def initialise(model: nn.Module, weights: str) -> str:
    """Start `model` from `weights`; returns what was done, for people.

    weights: ``none``, ``imagenet`` (torchvision's, from its cache, fetched where it is missing), or a path to a state
    dict. A classifier head of another shape is left as it is: only the backbone is taken then.

    Raises CheckpointError when they cannot be had or do not fit.
    """
    if weights == "none":
        return "random weights"
    path = Path(weights)
    state = _imagenet() if weights == "imagenet" else read_state(path)
    own = model.state_dict()
    head = {name for name in state if name.startswith("fc.")}
    if all(name in own and own[name].shape == state[name].shape for name in head) and head:
        load_weights(model, state, path, _ADVICE)
        return f"{weights}, head included"
    backbone = {name: tensor for name, tensor in state.items() if name not in head}
    kept = {name: tensor for name, tensor in own.items() if name.startswith("fc.")}
    load_weights(model, {**backbone, **kept}, path, _ADVICE)
    return f"{weights}, backbone only: its head has other shapes"


def check_start(weights: str, architecture: str) -> None:
    """Raise CheckpointError where `initialise` would; before the data is read, and without memory for a network."""
    if weights == "none":
        return
    with torch.device("meta"):
        model = build(architecture)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that nothing is copied to the meta device, as is meant here
        initialise(model, weights)


def _imagenet() -> dict[str, torch.Tensor]:
    from torchvision.models import ResNet50_Weights

    source = ResNet50_Weights.IMAGENET1K_V1
    try:
        return dict(source.get_state_dict(progress=False, check_hash=True))
    except (URLError, OSError, RuntimeError) as error:
        cache = Path(torch.hub.get_dir()) / "checkpoints"
        name = source.url.rsplit("/", 1)[-1]
        raise CheckpointError(
            f"torchvision's ImageNet weights are not cached and cannot be fetched ({error}). Put {name} into {cache} "
            "and run again, name another file with --weights PATH, or start from random weights with --weights none."
        ) from error
