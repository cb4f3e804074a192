"""The head of a network in a state dict: fully connected layers in the place of the network's own head."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stageproof.runtime.networks.spec import two_layer

if TYPE_CHECKING:
    import torch

    from stageproof.train.foreign.signatures import Signature


@dataclass(frozen=True)
class Head:
    """The head that was found."""

    kind: str
    """As `NetworkSpec.head`: ``linear``, ``two-layer`` or ``two-layer-WIDTH``."""
    classes: int
    names: dict[str, str]
    """Name of each tensor in the network → its name in the state dict."""
    hidden: int | None = None
    """Units of the hidden layer; None for a linear head."""


def read_head(signature: Signature, state: Mapping[str, torch.Tensor], prefix: str) -> tuple[Head | None, str]:
    """(the head, ""), or (None, why there is none that can be rebuilt).

    Layers without parameters, such as dropout, are not in a state dict: a head of one layer is the network's own,
    wherever in a Sequential it is. Between two layers a ReLU is assumed; two that follow each other are refused.
    """
    place = f"{prefix}{signature.root}."
    weights = {name: tensor for name, tensor in state.items() if name.startswith(place) and name.endswith("weight")}
    layers = {name.removesuffix("weight"): tensor for name, tensor in weights.items()}
    if not layers:
        return None, f"it has no head: no tensor begins with {place}"
    if unlike := [
        name for name in layers if f"{name}bias" not in state or layers[name].ndim != _axes(signature, layers)
    ]:
        return None, f"its head has a layer that is not fully connected: {unlike[0].rstrip('.')}"
    own = f"{signature.head}." if len(signature.features) == 1 else f"{signature.head}.1."
    if len(layers) == 1:
        ((name, weight),) = layers.items()
        if tuple(weight.shape[1:]) != signature.features:
            return None, f"its head {name}weight is {tuple(weight.shape)}, expected (classes, {_listed(signature)})"
        return Head("linear", len(weight), {f"{own}{one}": f"{name}{one}" for one in ("weight", "bias")}), ""
    named = ", ".join(name.rstrip(".") for name in layers)
    if len(layers) > 2 or len(signature.features) > 1:
        return (
            None,
            f"its head has {len(layers)} layers with weights, expected one or two: {named}",
        )
    first, last = sorted(layers, key=lambda name: tuple(layers[name].shape[1:]) != signature.features)
    hidden, classes = len(layers[first]), len(layers[last])
    if tuple(layers[first].shape[1:]) != signature.features or layers[last].shape[1] != hidden:
        shapes = ", ".join(f"{name}weight {tuple(layers[name].shape)}" for name in layers)
        return None, f"the layers of its head do not follow each other: {shapes}"
    at = [re.search(r"(\d+)\.$", name) for name in (first, last)]
    if at[0] and at[1] and int(at[1][1]) - int(at[0][1]) < 2:
        return (
            None,
            f"the layers {first.rstrip('.')} and {last.rstrip('.')} of its head have no activation between them",
        )
    names = {}
    for ours, theirs in ((f"{signature.head}.0.", first), (f"{signature.head}.3.", last)):
        names |= {f"{ours}{one}": f"{theirs}{one}" for one in ("weight", "bias")}
    return Head(two_layer(hidden), classes, names, hidden), ""


def _axes(signature: Signature, layers: Mapping[str, torch.Tensor]) -> int:
    return 1 + len(signature.features)


def _listed(signature: Signature) -> str:
    return ", ".join(map(str, signature.features))
