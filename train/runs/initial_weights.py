"""Initial weights: random, from a file, or torchvision's ImageNet weights."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from stageproof.runtime.labels import LabelSet
from stageproof.train.foreign.class_order import decide
from stageproof.train.foreign.imagenet import imagenet_state
from stageproof.train.foreign.side_files import beside
from stageproof.train.foreign.stated_order import stated
from stageproof.train.foreign.weight_files import Weights, last_matrix, of_network, outputs, read_weights
from stageproof.train.networks import NetworkSpec, construct
from stageproof.train.networks.adapt import adapted, is_of_head
from stageproof.train.runs.directory import load_weights

_ADVICE = "Train with the --recipe of its network, or leave --weights out."


def initialise(model: nn.Module, weights: str, network: NetworkSpec, classes: LabelSet | None) -> str:
    """Load `weights` into `model`, which was built from `network`; returns a short description of what was loaded.

    weights: ``none`` (random), ``imagenet`` (torchvision's, downloaded if not cached), or a path to a state dict.
        Weights for three input channels and for another image size are adapted (`train.networks.adapt`).
    classes: the label set of the model's outputs; None: not known yet, as before the data is read.

    Only the backbone is loaded if the head has another shape, or if its classes are known to be others
    (`train.foreign.stated_order`, `train.foreign.side_files`). Outputs of the same classes are put in their order.

    Raises CheckpointError if the weights cannot be read or downloaded, do not fit, or give contradictory class orders.
    """
    if weights == "none":
        return "random weights"
    path = Path(weights)
    found = Weights(imagenet_state(network.architecture), {}) if weights == "imagenet" else read_weights(path)
    backbone = [name for name in model.state_dict() if not is_of_head(name, model)]
    state, changes = adapted(of_network(found.state, backbone, path), model, network)
    found = replace(found, state=state)
    own = model.state_dict()
    head = {name for name in state if is_of_head(name, model)}
    if all(name in own and own[name].shape == state[name].shape for name in head) and head:
        order = _order(found, path, classes)
        if order is None or classes is None or set(order) == set(classes.names):
            state, how = _reordered(found, order, classes)
            load_weights(model, state, path, _ADVICE)
            return f"{weights}, head included{how}{changes}"
        why = f"its classes are {', '.join(order)}"
    else:
        why = "its head has another shape"
    without = {name: tensor for name, tensor in state.items() if name not in head}
    kept = {name: tensor for name, tensor in own.items() if is_of_head(name, model)}
    load_weights(model, {**without, **kept}, path, _ADVICE)
    return f"{weights}, backbone only ({why}){changes}"


def _order(found: Weights, path: Path, classes: LabelSet | None) -> tuple[str, ...] | None:
    """The classes of the outputs, as the weights or files beside them state them: by their names in `classes` if all
    are in it. None if nothing states them."""
    count = outputs(found.state)
    if count is None:
        return None
    statements = [*stated(found.beside, path.name), *beside(path, count)]
    if not statements:
        return None
    order = decide(statements, (), path.name, count).labels  # raises CheckpointError if they contradict each other
    inside = [] if classes is None else [one.within(classes) for one in statements]
    return next((tuple(str(name) for name in one) for one in inside if None not in one), order)


def _reordered(
    found: Weights, order: tuple[str, ...] | None, classes: LabelSet | None
) -> tuple[dict[str, torch.Tensor], str]:
    """The state dict with its outputs in the order of `classes`, and a description of what was changed."""
    if order is None:
        return found.state, ", class order unknown"
    name = last_matrix(found.state)
    if classes is None or order == classes.names or name is None:
        return found.state, ""
    rows = [order.index(label) for label in classes.names]
    last = {one for one in (name, f"{name.removesuffix('weight')}bias") if one in found.state}
    state = {one: tensor[rows] if one in last else tensor for one, tensor in found.state.items()}
    return state, ", outputs reordered to clinical order"


def check_start(weights: str, network: NetworkSpec, classes: LabelSet | None) -> None:
    """Raise CheckpointError if `initialise` would; called before the data is read, without memory for a network."""
    if weights == "none":
        return
    with torch.device("meta"):
        model = construct(network)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # "copying to the meta device is a no-op", which is intended
        initialise(model, weights, network, classes)
