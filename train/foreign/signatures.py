"""`Signature`: names and shapes of a network's tensors, from the network itself, built without memory for its weights.

The head is kept apart, because the number of classes and hidden units is free, and so are the channels of the first
convolution and the number of positions of a Vision Transformer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from stageproof.runtime.networks import torchvision_models
from stageproof.runtime.networks.spec import NetworkSpec, two_layer
from stageproof.train.networks import ARCHITECTURES, construct

COUNTER = "num_batches_tracked"
"""Counter of BatchNorm, which files of old PyTorch versions lack and inference does not use."""
POSITIONS = "encoder.pos_embedding"
_OVERLAP = 0.5
"""Share of the names of a family's first network that a state dict must contain for its family to be compared."""


@dataclass(frozen=True)
class Signature:
    """Names and shapes of the tensors of one network."""

    architecture: str
    body: dict[str, tuple[int, ...]]
    """Name → shape, without head, counters of BatchNorm, and the free axes, which are 0."""
    stem: str
    """Name of the weight of the first convolution; its axis 1 is the input channels."""
    head: str
    """Name of the head's module, such as ``fc`` or ``classifier.1``."""
    root: str
    """The outermost module that contains no other parameters than the head's, such as ``classifier``."""
    features: tuple[int, ...]
    """Shape of the head's weight without its first axis: (features,), or (features, 1, 1) for a convolution."""
    unused: tuple[str, ...] = ()
    """Prefixes of auxiliary classifiers, which are used in training only."""

    @property
    def patch(self) -> int:
        """Size of the patches of a Vision Transformer, pixels."""
        return self.body[self.stem][-1]


class _Unallocated(TorchFunctionMode):
    """Creates the parameters of layers on the meta device. As a default device it would fail in RegNet, whose code
    computes with small tensors."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        options = dict(kwargs or {})
        if function is torch.empty:
            options["device"] = "meta"
        return function(*args, **options)


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


def read_head(found: Signature, state: Mapping[str, torch.Tensor], prefix: str) -> tuple[Head | None, str]:
    """(the head, ""), or (None, why there is none that can be rebuilt).

    Layers without parameters, such as dropout, are not in a state dict: a head of one layer is the network's own,
    wherever in a Sequential it is. Between two layers a ReLU is assumed; two that follow each other are refused.
    """
    place = f"{prefix}{found.root}."
    weights = {name: tensor for name, tensor in state.items() if name.startswith(place) and name.endswith("weight")}
    layers = {name.removesuffix("weight"): tensor for name, tensor in weights.items()}
    if not layers:
        return None, f"it has no head: no tensor begins with {place}"
    if unlike := [
        name for name in layers if f"{name}bias" not in state or layers[name].ndim != 1 + len(found.features)
    ]:
        return None, f"its head has a layer that is not fully connected: {unlike[0].rstrip('.')}"
    if unlike := [name for name in layers if tuple(state[f"{name}bias"].shape) != (len(layers[name]),)]:
        return None, f"its head has a bias of another length than its layer: {unlike[0]}bias"
    own = f"{found.head}." if len(found.features) == 1 else f"{found.head}.1."
    if len(layers) == 1:
        ((name, weight),) = layers.items()
        if tuple(weight.shape[1:]) != found.features:
            expected = ", ".join(map(str, ("classes", *found.features)))
            return None, f"its head {name}weight is {tuple(weight.shape)}, expected ({expected})"
        return Head("linear", len(weight), {f"{own}{one}": f"{name}{one}" for one in ("weight", "bias")}), ""
    named = ", ".join(name.rstrip(".") for name in layers)
    if len(layers) > 2 or len(found.features) > 1:
        return (
            None,
            f"its head has {len(layers)} layers with weights, expected one or two: {named}",
        )
    first, last = sorted(layers, key=lambda name: tuple(layers[name].shape[1:]) != found.features)
    hidden, classes = len(layers[first]), len(layers[last])
    if tuple(layers[first].shape[1:]) != found.features or layers[last].shape[1] != hidden:
        shapes = ", ".join(f"{name}weight {tuple(layers[name].shape)}" for name in layers)
        return None, f"the layers of its head do not follow each other: {shapes}"
    at = [re.search(r"(\d+)\.$", name) for name in (first, last)]
    if at[0] and at[1] and int(at[1][1]) - int(at[0][1]) < 2:
        return (
            None,
            f"the layers {first.rstrip('.')} and {last.rstrip('.')} of its head have no activation between them",
        )
    names: dict[str, str] = {}
    for ours, theirs in ((f"{found.head}.0.", first), (f"{found.head}.3.", last)):
        names |= {f"{ours}{one}": f"{theirs}{one}" for one in ("weight", "bias")}
    return Head(two_layer(hidden), classes, names, hidden), ""


def unallocated(spec: NetworkSpec) -> nn.Module:
    """The network of `spec` without memory for its weights. Raises CheckpointError as `construct`."""
    with _Unallocated():
        return construct(spec)


def shape_of(spec: NetworkSpec) -> dict[str, tuple[int, ...]]:
    """Name → shape of all tensors of the network, without BatchNorm's counters."""
    state = unallocated(spec).state_dict()
    return {name: tuple(tensor.shape) for name, tensor in state.items() if not name.endswith(COUNTER)}


def signature(architecture: str) -> Signature:
    """The signature of the network. Raises CheckpointError for an unknown architecture."""
    return _measured(architecture) if architecture in ARCHITECTURES else _of_torchvision(architecture)


def candidates(names: Iterable[str]) -> list[Signature]:
    """The networks whose tensors may have these names, under any prefix: the own ones, and torchvision's families that
    share at least half of their names, the most alike first."""
    known = _endings(names)
    families: dict[str, list[str]] = {}
    for name in torchvision_models.names():
        families.setdefault(_family(name), []).append(name)
    shares = {}
    for family, members in families.items():
        expected = {_numberless(one) for one in signature(members[0]).body}
        shares[family] = len(expected & known) / len(expected)
    chosen = sorted((family for family in families if shares[family] >= _OVERLAP), key=lambda one: -shares[one])
    return [signature(one) for one in [*ARCHITECTURES, *(name for family in chosen for name in families[family])]]


@cache
def _of_torchvision(architecture: str) -> Signature:
    return _measured(architecture)


def _measured(architecture: str) -> Signature:
    model = unallocated(NetworkSpec.of(architecture, 2, 3, "linear"))
    head = torchvision_models.head_name(model)
    layers = [name for name, _ in model.named_parameters() if _inside(name, head)]
    root = head
    while "." in root and all(
        _inside(name, head) for name, _ in model.named_parameters() if _inside(name, root.rpartition(".")[0])
    ):
        root = root.rpartition(".")[0]
    state = {name: tuple(one.shape) for name, one in model.state_dict().items() if not name.endswith(COUNTER)}
    weight = next(name for name in layers if name.endswith("weight"))
    stem = next(f"{name}.weight" for name, one in model.named_modules() if isinstance(one, nn.Conv2d))
    body = {name: shape for name, shape in state.items() if not _inside(name, root)}
    body[stem] = (body[stem][0], 0, *body[stem][2:])
    if POSITIONS in body:
        body[POSITIONS] = (1, 0, body[POSITIONS][2])
    unused = {"googlenet": ("aux1.", "aux2."), "inception_v3": ("AuxLogits.",)}.get(architecture, ())
    return Signature(architecture, body, stem, head, root, state[weight][1:], unused)


def _inside(name: str, module: str) -> bool:
    return name.startswith(f"{module}.")


def _family(architecture: str) -> str:
    from torchvision.models import get_model_builder

    return str(get_model_builder(architecture).__module__)


def _numberless(name: str) -> str:
    return re.sub(r"\d+", "#", name)


def _endings(names: Iterable[str]) -> set[str]:
    """All endings of the names that begin after a dot, without numbers."""
    found = set()
    for name in {_numberless(one) for one in names}:
        parts = name.split(".")
        found |= {".".join(parts[start:]) for start in range(len(parts))}
    return found
