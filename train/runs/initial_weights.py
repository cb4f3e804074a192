"""Initial weights: random, from a file, or torchvision's ImageNet weights."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from stageproof.runtime.labels import ASSUMED, LABELS
from stageproof.train.foreign.class_order import decide
from stageproof.train.foreign.imagenet import imagenet_state
from stageproof.train.foreign.side_files import beside
from stageproof.train.foreign.stated_order import stated
from stageproof.train.foreign.weight_files import Weights, last_matrix, outputs, read_weights
from stageproof.train.networks import NetworkSpec, construct
from stageproof.train.networks.adapt import adapted, is_of_head
from stageproof.train.runs.directory import load_weights

_ADVICE = "Train with the --recipe of its network, or leave --weights out."


def initialise(model: nn.Module, weights: str, network: NetworkSpec) -> str:
    """Load `weights` into `model`, which was built from `network`; returns a short description of what was loaded.

    weights: ``none`` (random), ``imagenet`` (torchvision's, downloaded if not cached), or a path to a state dict. Only
    the backbone is loaded if the head has another shape; weights for three input channels and for another image size
    are adapted (`train.networks.adapt`). If the class order of the head is known (`train.foreign.stated_order`,
    `train.foreign.side_files`), its outputs are reordered to clinical order (LABELS).

    Raises CheckpointError if the weights cannot be read or downloaded, do not fit, or give contradictory class orders.
    """
    if weights == "none":
        return "random weights"
    path = Path(weights)
    found = Weights(imagenet_state(network.architecture), {}) if weights == "imagenet" else read_weights(path)
    state, changes = adapted(found.state, model, network)
    found = replace(found, state=state)
    own = model.state_dict()
    head = {name for name in state if is_of_head(name, model)}
    if all(name in own and own[name].shape == state[name].shape for name in head) and head:
        state, how = _in_clinical_order(found, path)
        load_weights(model, state, path, _ADVICE)
        return f"{weights}, head included{how}{changes}"
    backbone = {name: tensor for name, tensor in state.items() if name not in head}
    kept = {name: tensor for name, tensor in own.items() if is_of_head(name, model)}
    load_weights(model, {**backbone, **kept}, path, _ADVICE)
    return f"{weights}, backbone only (its head has another shape){changes}"


def _in_clinical_order(found: Weights, path: Path) -> tuple[dict[str, torch.Tensor], str]:
    """The state dict with its outputs in the order of LABELS, and a description of what was changed."""
    statements = [one for one in (*stated(found.beside, path.name), *beside(path)) if None not in one.labels]
    order = decide(statements, (), path.name, outputs(found.state) or len(LABELS))
    if order.origin == ASSUMED:
        return found.state, ", class order unknown"
    name = last_matrix(found.state)
    if order.labels == LABELS or name is None:
        return found.state, ""
    rows = [order.labels.index(label) for label in LABELS]
    last = {one for one in (name, f"{name.removesuffix('weight')}bias") if one in found.state}
    state = {one: tensor[rows] if one in last else tensor for one, tensor in found.state.items()}
    return state, ", outputs reordered to clinical order"


def check_start(weights: str, network: NetworkSpec) -> None:
    """Raise CheckpointError if `initialise` would; called before the data is read, without memory for a network."""
    if weights == "none":
        return
    with torch.device("meta"):
        model = construct(network)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # "copying to the meta device is a no-op", which is intended
        initialise(model, weights, network)
