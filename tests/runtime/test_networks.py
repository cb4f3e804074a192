"""The networks that runtime computes by itself are those that train builds."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch", reason="the extra torch")

from stageproof.runtime.backends.networks import network  # noqa: E402
from stageproof.runtime.networks.spec import NetworkSpec  # noqa: E402


@pytest.fixture(scope="module", params=["resnet50", "resnet34-gray", "resnet18", "wide_resnet50_2"])
def eager(request: pytest.FixtureRequest) -> tuple[str, torch.nn.Module]:
    """An untrained network whose BatchNorm does something to every channel."""
    from stageproof.train.networks import build

    torch.manual_seed(4)
    model = build(request.param, 4).eval().requires_grad_(False)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.uniform_(0.5, 1.0)
            module.bias.normal_(0, 0.1)
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return request.param, model


def folded(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    from torch.fx.experimental.optimization import fuse

    return dict(fuse(copy.deepcopy(model)).state_dict())


@pytest.mark.parametrize("size", [(64, 64), (33, 47)])
def test_it_is_the_eager_network(eager, size: tuple[int, int]) -> None:
    name, model = eager
    images = torch.randn(2, 1 if "gray" in name else 3, *size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected, got = model(images), network(NetworkSpec.of(name, 4), folded(model), torch)(images)
    assert expected.std() > 1e-3
    assert torch.allclose(got, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def test_weights_of_another_network_are_named(eager) -> None:
    name, model = eager
    weights = folded(model)
    with pytest.raises(ValueError, match=r"the architecture is 'vgg', expected one of resnet18, resnet34, resnet50, "):
        network(NetworkSpec.of("vgg", 4), weights, torch)
    with pytest.raises(ValueError, match=rf"do not fit a {name} with folded BatchNorm: .* unknown\. Export it"):
        network(NetworkSpec.of(name, 4), dict(model.state_dict()), torch)
    less = {key: value for key, value in weights.items() if key != "layer1.0.conv1.weight"}
    less.pop("layer1.0.conv1.0.weight", None)
    with pytest.raises(ValueError, match=r"layer1\.0\.conv1.*weight \(1 in all\) missing"):
        network(NetworkSpec.of(name, 4), less, torch)


def test_other_heads_of_a_resnet() -> None:
    from stageproof.train.networks import construct

    torch.manual_seed(0)
    images = torch.randn(2, 3, 64, 64)
    for spec in (NetworkSpec.of("resnet50", 3, head="linear"), NetworkSpec.of("resnet18", 7, head="two-layer")):
        model = construct(spec).eval()
        with torch.inference_mode():
            expected = model(images)
            assert torch.allclose(network(spec, folded(model), torch)(images), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("architecture", ["mobilenet_v3_small", "mnasnet0_5", "swin_v2_t", "shufflenet_v2_x0_5"])
def test_a_network_of_torchvision_is_rebuilt_from_its_specification_and_weights(architecture: str) -> None:
    pytest.importorskip("torchvision", reason="the extra torchvision")
    from stageproof.runtime.networks.torchvision_models import construct, loaded

    torch.manual_seed(0)
    spec = NetworkSpec.of(architecture, 3, 1, "two-layer", 64)
    model = construct(spec).eval()
    images = torch.randn(2, 1, 64, 64)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.inference_mode():
        expected = model(images)
        assert torch.equal(loaded(spec, weights)(images), expected)
    weights.pop(next(iter(weights)))
    with pytest.raises(ValueError, match=rf"do not fit a {architecture} with 3 classes, 1 input channels and a two-la"):
        loaded(spec, weights)
    with pytest.raises(ValueError, match=r"of another shape"):
        loaded(NetworkSpec.of(architecture, 4, 1, "two-layer", 64), dict(model.state_dict()))
