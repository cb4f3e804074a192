"""Any classification network of torchvision, with any number of classes, one or three channels, and two heads."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn
from torchvision import models

from stageproof.runtime.errors import CheckpointError
from stageproof.runtime.networks.torchvision_models import head_name, names
from stageproof.runtime.preprocess import InputSpec
from stageproof.train.data.batches import Batches
from stageproof.train.engine.features import backbone_features
from stageproof.train.engine.hooks import Hooks
from stageproof.train.engine.loop import Objective, predict, run_stage
from stageproof.train.engine.stage import StageState
from stageproof.train.networks import NetworkSpec, build, construct, head_of, load_state
from stageproof.train.recipes import Stage
from stageproof.train.seeds import place_dropouts, seed_dropouts

SPEC = InputSpec.imagenet(32)

SMALLEST = (
    "alexnet convnext_tiny densenet121 efficientnet_b0 googlenet inception_v3 mnasnet0_5 mobilenet_v3_small "
    "regnet_y_400mf resnet18 resnet34-gray shufflenet_v2_x0_5 squeezenet1_1 swin_v2_t vgg11 vit_b_16 maxvit_t"
).split()
"""One of each family."""
BY_CONVOLUTION = ("squeezenet1_0", "squeezenet1_1")
"""Networks without a fully connected layer."""


@pytest.mark.parametrize("architecture", SMALLEST)
def test_each_family_gives_logits_of_any_classes_with_another_head_and_one_channel(architecture):
    assert_logits(architecture, (1, "linear" if architecture in BY_CONVOLUTION else "two-layer", 7))


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["resnet34-gray", *names()])
def test_every_network_gives_logits_of_any_classes_with_any_head_and_channels(architecture):
    assert_logits(architecture, (1, "linear", 2), (3, "two-layer", 7))


def assert_logits(architecture: str, *variants: tuple[int, str, int]) -> None:
    for channels, head, classes in variants:
        if head == "two-layer" and architecture in BY_CONVOLUTION:
            with pytest.raises(CheckpointError, match=rf"{architecture} classifies by a convolution: .* only a linear"):
                build(architecture, classes, channels, head)
            continue
        features = []
        with torch.device("meta"), torch.inference_mode():
            model = build(architecture, classes, channels, head, 224).eval()
            handle = head_of(model).register_forward_pre_hook(lambda _, inputs: features.append(inputs[0]))  # noqa: B023
            assert model(torch.empty(2, channels, 224, 224)).shape == (2, classes)
            handle.remove()
            assert head_of(model)(features[0]).shape == (2, classes), "nothing lies behind the head"
        two = [type(layer) for layer in head_of(model).children()] == [nn.Linear, nn.ReLU, nn.Dropout, nn.Linear]
        assert two == (head == "two-layer")


@pytest.mark.parametrize("architecture", ["densenet121", "vit_b_16", "mobilenet_v3_small", "squeezenet1_1"])
def test_the_names_of_its_weights_are_torchvisions(architecture):
    with torch.device("meta"):
        own, published = build(architecture, 1000).state_dict(), models.get_model(architecture).state_dict()
    assert {name: value.shape for name, value in own.items()} == {n: value.shape for n, value in published.items()}


def test_the_published_heads_are_the_defaults():
    with torch.device("meta"):
        assert [name for name in build("resnet50", 3).state_dict() if name.startswith("fc")] == [
            "fc.0.weight",
            "fc.0.bias",
            "fc.3.weight",
            "fc.3.bias",
        ]
        assert build("resnet34-gray", 3).conv1[0].in_channels == 1
        assert isinstance(head_of(build("resnet18", 3)), nn.Linear)


@pytest.mark.parametrize("architecture", ["resnet18", "densenet121", "mobilenet_v3_small"])
def test_one_channel_starts_as_three_equal_ones(architecture):
    torch.manual_seed(0)
    colour = build(architecture, 4, 3).eval()
    torch.manual_seed(0)
    grey = build(architecture, 4, 1).eval()
    grey.load_state_dict({**colour.state_dict(), **_first_convolution(grey)})
    images = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        assert torch.allclose(grey(images), colour(images.expand(-1, 3, -1, -1)), atol=1e-5)


def _first_convolution(model: nn.Module) -> dict[str, torch.Tensor]:
    name, module = next(pair for pair in model.named_modules() if isinstance(pair[1], nn.Conv2d))
    return {f"{name}.{key}": value for key, value in module.state_dict().items()}


def test_a_specification_rebuilds_the_network():
    spec = NetworkSpec.of("vit_b_16", 7, 1, "two-layer", 32)
    assert NetworkSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    with torch.device("meta"):
        first, again = construct(spec), construct(NetworkSpec.from_dict(spec.to_dict()))
    assert {n: v.shape for n, v in first.state_dict().items()} == {n: v.shape for n, v in again.state_dict().items()}
    assert first.encoder.pos_embedding.shape == (1, 1 + 2 * 2, 768)
    assert head_of(first)[3].out_features == 7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("resnet5O", 4), r"No network is called 'resnet5O'\. Did you mean resnet50, "),
        (("DenseNet-121", 4), r"Did you mean densenet121, "),
        (("efficientnet-b0", 4), r"Did you mean efficientnet_b0, "),
        (("xyz", 4), r"No network is called 'xyz'\. Known are resnet34-gray and torchvision's"),
        (("fasterrcnn_resnet50_fpn", 4), r"No network is called 'fasterrcnn_resnet50_fpn'"),
        (("resnet18", 1), r"a classifier of 1 classes, expected 2 or more"),
        (("resnet18", 4, 2), r"2 input channels, expected 1 \(grey\) or 3 \(RGB\)"),
        (("resnet18", 4, 3, "deep"), r"the head 'deep', expected linear or two-layer"),
        (
            ("vit_b_16", 4, 3, None, 100),
            r"vit_b_16 cannot be built for images of 100 × 100 pixels, expected a .* of 16\.",
        ),
        (
            ("maxvit_t", 4, 3, None, 64),
            r"maxvit_t cannot be built for images of 64 × 64 pixels, expected a .* of 224",
        ),
    ],
)
def test_what_cannot_be_built_is_refused_by_name(arguments, message):
    with torch.device("meta"), pytest.raises(CheckpointError, match=message):
        build(*arguments)


def test_a_plain_torchvision_model_has_a_head_too():
    with torch.device("meta"):
        assert {name: head_name(models.get_model(name)) for name in ("vgg11", "convnext_tiny", "swin_t")} == {
            "vgg11": "classifier.6",
            "convnext_tiny": "classifier.2",
            "swin_t": "head",
        }


@pytest.mark.parametrize("architecture", ["efficientnet_b0", "convnext_tiny", "squeezenet1_1"])
def test_the_head_of_cached_features_gives_the_logits_of_the_network(architecture):
    torch.manual_seed(0)
    model = build(architecture, 3)
    images = Batches(torch.randint(0, 256, (5, 1, 32, 32), dtype=torch.uint8), torch.zeros(5).long(), SPEC, 2)
    features = backbone_features(model, images, None)
    expected, _ = predict(model, images)
    got, _ = predict(head_of(model), Batches(features, images.labels, None, 5))
    assert np.allclose(got, expected, atol=1e-5)
    none = Batches(images.inputs, images.labels, SPEC, 2, chosen=torch.zeros(0, dtype=torch.int64))
    assert backbone_features(model, none, None).shape == (0, *features.shape[1:])


def test_stage_one_changes_the_head_alone():
    """Of a network with BatchNorm, Dropout and stochastic depth in its backbone."""
    torch.manual_seed(0)
    model = build("efficientnet_b0", 3)
    seed_dropouts(model)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # statistics of the one batch below: without any, features vanish
    with torch.no_grad():
        place_dropouts(model, 0, 6, slice(0, 6))
        model.train()(torch.randn(6, 3, 32, 32))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    batches = Batches(torch.randint(0, 256, (6, 1, 32, 32), dtype=torch.uint8), torch.arange(6) % 3, SPEC, 3)
    head = head_of(model)
    state = StageState(head, torch.optim.SGD(head.parameters(), 0.1), device_type="cpu", fp16=False, ema=0.9)
    hooks = Hooks(
        measure=lambda *_: {"loss": 0.0, "accuracy": 0.0, "balanced_accuracy": 0.0},
        on_step=lambda _: None,
        on_epoch=lambda _: None,
        checkpoint=lambda: None,
        due=lambda: False,
        last_good=lambda: "",
        stop=lambda: False,
    )
    run_stage("head", Stage(1, 0.1), model, head, state, batches, batches, objective=Objective(), hooks=hooks)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"classifier.1.weight", "classifier.1.bias"}


def test_weights_without_versions_load_into_a_network_that_needs_them():
    """MNASNet refuses a state dict whose version is not known, such as one from safetensors."""
    torch.manual_seed(0)
    model, other = build("mnasnet0_5", 3), build("mnasnet0_5", 3)
    state = dict(model.state_dict())
    with pytest.raises(ValueError, match="version should be set"):
        other.load_state_dict(state)
    load_state(other, state)
    assert all(torch.equal(tensor, state[name]) for name, tensor in other.state_dict().items())
