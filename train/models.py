"""The networks, with module names equal to those of the published checkpoints."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn
from torchvision.models import resnet50

from runtime.errors import CheckpointError
from runtime.labels import LABELS


def build_resnet50(classes: int = len(LABELS)) -> nn.Module:
    """torchvision's ResNet50 with the head 2048→512→ReLU→Dropout(0.3)→512→classes: (N, 3, H, W) → (N, classes).

    The last BatchNorm of each residual branch starts at zero (Goyal et al. 2017, section 5.1), so that an untrained
    network is shallow at first; any weights loaded afterwards replace it.
    """
    model = resnet50(weights=None, zero_init_residual=True)
    model.fc = nn.Sequential(
        nn.Linear(model.fc.in_features, 512), nn.ReLU(inplace=True), nn.Dropout(0.3), nn.Linear(512, classes)
    )
    return model


ARCHITECTURES: dict[str, Callable[[], nn.Module]] = {"resnet50": build_resnet50}


def head_of(model: nn.Module) -> nn.Module:
    """The classifier on top of the backbone."""
    return model.get_submodule("fc")


def build(architecture: str) -> nn.Module:
    """An untrained network. Raises CheckpointError for an architecture this version does not know."""
    if architecture not in ARCHITECTURES:
        raise CheckpointError(f"No architecture is called {architecture!r}. Known: {', '.join(ARCHITECTURES)}.")
    return ARCHITECTURES[architecture]()
