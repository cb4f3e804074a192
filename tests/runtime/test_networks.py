"""The networks that runtime computes by itself are those that train builds."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch", reason="the extra torch")

from stageproof.runtime.backends.networks import network  # noqa: E402


@pytest.fixture(scope="module", params=["resnet50", "resnet34-gray"])
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
        expected, got = model(images), network(name, folded(model), torch)(images)
    assert expected.std() > 1e-3
    assert torch.allclose(got, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def test_weights_of_another_network_are_named(eager) -> None:
    name, model = eager
    weights = folded(model)
    with pytest.raises(ValueError, match=r"the architecture is 'vgg', expected one of resnet50, resnet34-gray"):
        network("vgg", weights, torch)
    with pytest.raises(ValueError, match=rf"do not fit a {name} with folded BatchNorm: .* unknown\. Export it"):
        network(name, dict(model.state_dict()), torch)
    less = {key: value for key, value in weights.items() if key != "layer1.0.conv1.weight"}
    less.pop("layer1.0.conv1.0.weight", None)
    with pytest.raises(ValueError, match=r"layer1\.0\.conv1.*weight \(1 in all\) missing"):
        network(name, less, torch)
