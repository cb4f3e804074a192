"""Networks are identified by the names and shapes of their tensors; a partial fit is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from stageproof.runtime.errors import CheckpointError
from stageproof.runtime.networks import torchvision_models
from stageproof.runtime.networks.spec import NetworkSpec, hidden_units, is_head, two_layer
from stageproof.train.foreign.bookkeeping import bookkeeping
from stageproof.train.foreign.identification import identify
from stageproof.train.foreign.signatures import unallocated
from stageproof.train.foreign.weight_files import Contents

BY_CONVOLUTION = ("squeezenet1_0", "squeezenet1_1")


def contents(state: dict[str, torch.Tensor], name: str = "") -> Contents:
    return Contents(Path("model.pth"), {name: state}, {})


def state_of(spec: NetworkSpec, prefix: str = "") -> dict[str, torch.Tensor]:
    """Names and shapes of the network's tensors, without values."""
    return {f"{prefix}{name}": tensor for name, tensor in unallocated(spec).state_dict().items()}


@pytest.mark.parametrize(
    "spec",
    [
        NetworkSpec.of("resnet50", 4, 3, "two-layer"),
        NetworkSpec.of("resnet34-gray", 4),
        NetworkSpec.of("resnet50", 3, 1, "two-layer-100"),
        NetworkSpec.of("resnet18", 20),
        NetworkSpec.of("mobilenet_v2", 4, 1, "two-layer"),
        NetworkSpec.of("vgg16", 2),
        NetworkSpec.of("vit_b_16", 3, 1, "linear", 96),
    ],
    ids=lambda spec: f"{spec.architecture}-{spec.classes}-{spec.channels}-{spec.head}-{spec.image_size}",
)
def test_a_network_is_told_with_its_head_classes_channels_and_size(spec):
    state = state_of(spec)
    found = identify(contents({f"module.encoder.{name}": tensor for name, tensor in state.items()}, "net"))
    assert (found.spec, found.prefix, found.key) == (spec, "module.encoder.", "net")
    assert set(found.state) == {name for name in state if not name.endswith("num_batches_tracked")}


@pytest.mark.slow
def test_each_network_of_torchvision_is_told_and_from_all_others():
    for name in torchvision_models.names():
        size = {"vit_h_14": 28, "maxvit_t": 224}.get(name, 64) if "vit" in name else None
        for channels, head in ((3, "linear"), (1, "linear" if name in BY_CONVOLUTION else "two-layer-100")):
            spec = NetworkSpec.of(name, 7, channels, head, size)
            found = identify(contents(state_of(spec, "a.b.")))
            assert (found.spec.architecture, found.spec.head, found.spec.channels) == (name, head, channels)
            assert found.spec.image_size == (None if name == "maxvit_t" else size)


def test_a_tensor_more_or_less_or_of_another_shape_is_no_fit():
    state = state_of(NetworkSpec.of("vgg11", 4))
    names = [name for name in state if not name.endswith("num_batches_tracked")]
    for name in (names[0], names[len(names) // 2], names[-1]):
        less = {one: tensor for one, tensor in state.items() if one != name}
        other = {**state, name: torch.empty(*state[name].shape, 2, device="meta")}
        more = {**state, f"{name}_g": state[name]}
        for changed in (less, other, more):
            with pytest.raises(CheckpointError, match="fits no network that is known here"):
                identify(contents(changed))


def test_two_networks_that_fit_alike_are_both_named(monkeypatch):
    from stageproof.train.networks import ARCHITECTURES

    class Twin(nn.Module):
        def __init__(self, classes: int, channels: int) -> None:
            super().__init__()
            self.conv = nn.Conv2d(channels, 2, 3)
            self.fc = nn.Linear(2, classes)

    monkeypatch.setitem(ARCHITECTURES, "one", Twin)
    monkeypatch.setitem(ARCHITECTURES, "other", Twin)
    state = Twin(4, 3).state_dict()
    with pytest.raises(CheckpointError, match=r"fit one and other alike\. Name the network: --architecture one"):
        identify(contents(state))
    assert identify(contents(state), "other").spec.architecture == "other"


def test_a_two_layer_head_with_as_many_units_as_features():
    state = state_of(NetworkSpec.of("resnet18", 4, 3, "two-layer"))
    assert identify(contents(state)).spec.head == "two-layer"
    moved = {name.replace("fc.0.", "fc.first.").replace("fc.3.", "fc.last."): one for name, one in state.items()}
    assert identify(contents(moved)).head.hidden == 512


@pytest.mark.parametrize(("channels", "message"), [(4, "4 input channels, expected 1"), (2, "2 input channels")])
def test_other_numbers_of_channels(channels, message):
    state = state_of(NetworkSpec.of("resnet18", 4))
    state["conv1.weight"] = torch.empty(64, channels, 7, 7, device="meta")
    with pytest.raises(CheckpointError, match=message):
        identify(contents(state))


def test_earlier_names_and_layers_compiled_alone():
    old = re.compile(r"(denselayer\d+)\.(norm|conv)([12])\.")
    state = state_of(NetworkSpec.of("densenet121", 3))
    found = identify(
        contents({"net." + old.sub(r"\1.\2.\3.", name): tensor for name, tensor in state.items()}), "densenet121"
    )
    assert (found.spec.architecture, found.prefix) == ("densenet121", "net.")
    assert all(found.state[name] is state[name] for name in found.state)
    state = state_of(NetworkSpec.of("resnet18", 3))
    compiled = {name.replace("layer1.", "layer1._orig_mod."): tensor for name, tensor in state.items()}
    found = identify(contents(compiled), "resnet18")
    assert found.state["layer1.0.conv1.weight"] is state["layer1.0.conv1.weight"]


def test_positions_of_an_image_that_is_not_square():
    state = state_of(NetworkSpec.of("vit_b_16", 4))
    state["encoder.pos_embedding"] = torch.empty(1, 1 + 6, 768, device="meta")
    with pytest.raises(CheckpointError, match="vit_b_16 with 6 positions, expected a square number"):
        identify(contents(state))


def test_auxiliary_classifiers_are_left_out_and_named():
    from torchvision import models

    with torch.device("meta"):
        state = models.googlenet(num_classes=4, init_weights=False).state_dict()
    found = identify(contents(state))
    assert list(found.dropped) == ["auxiliary classifiers, used in training only"]
    assert all(name.startswith(("aux1.", "aux2.")) for names in found.dropped.values() for name in names)


def test_what_belongs_to_the_training_is_known_by_its_name():
    kept = [
        "fc.weight",
        "accent.weight",
        "glossy.bias",
        "metric_net",
        "attention.weight",
        "precise.weight",
        "scm.weight",
    ]
    dropped = ["loss_fn.weight", "criterion.ce.weight", "val_f1.tp", "metrics.acc.total", "layer1.total_ops", "tp"]
    found, rest = bookkeeping([*kept, *dropped])
    assert rest == kept
    assert sorted(name for names in found.values() for name in names) == sorted(dropped)


def test_names_of_heads():
    assert [two_layer(units) for units in (512, 7)] == ["two-layer", "two-layer-7"]
    assert [hidden_units(head) for head in ("linear", "two-layer", "two-layer-7")] == [None, 512, 7]
    assert [is_head(head) for head in ("linear", "two-layer", "two-layer-7")] == [True] * 3
    assert not any(is_head(head) for head in ("two-layer-512", "two-layer-0", "two-layer-07", "two-layer-", "three"))
