"""ResNets in plain PyTorch functions, without torchvision and the training code.

`train.networks` builds the same networks with BatchNorm layers; here BatchNorm is folded into the preceding
convolution, so that every convolution has a weight and a bias. Layer names are torchvision's, and those of the
published checkpoints. `runtime.networks.torchvision_models` builds all other networks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

from stageproof.runtime.networks.spec import NetworkSpec


@dataclass(frozen=True)
class _Shape:
    """The parameters of a residual network."""

    stem: str
    """The first convolution, 7 x 7 with stride 2."""
    layers: tuple[tuple[str, int], ...]
    """Name and number of blocks of each stage; all but the first start with stride 2."""
    convolutions: tuple[str, ...]
    """Convolutions of a block, in order."""
    strided: str
    """The convolution of a block that applies the stride."""


def _of_torchvision(blocks: tuple[int, int, int, int], bottleneck: bool) -> _Shape:
    layers = tuple((f"layer{index}", count) for index, count in enumerate(blocks, 1))
    if bottleneck:
        return _Shape("conv1", layers, ("conv1", "conv2", "conv3"), "conv2")
    return _Shape("conv1", layers, ("conv1", "conv2"), "conv1")


_SHAPES = {
    "resnet18": _of_torchvision((2, 2, 2, 2), False),
    "resnet34": _of_torchvision((3, 4, 6, 3), False),
    "resnet50": _of_torchvision((3, 4, 6, 3), True),
    "resnet101": _of_torchvision((3, 4, 23, 3), True),
    "resnet152": _of_torchvision((3, 8, 36, 3), True),
    "wide_resnet50_2": _of_torchvision((3, 4, 6, 3), True),
    "wide_resnet101_2": _of_torchvision((3, 4, 23, 3), True),
    "resnet34-gray": _Shape(
        "conv1.0",
        (("layer0", 3), ("layer1", 4), ("layer2", 6), ("layer3", 3)),
        ("conv1.0", "conv2.0"),
        "conv1.0",
    ),
}
"""Architecture → parameters. The widths are those of the weights, so wide ResNets have the parameters of ResNet."""
_HEADS = {"linear": ("fc",), "two-layer": ("fc.0", "fc.3")}
"""Head → its fully connected layers, with ReLU between them."""


def is_known(architecture: str) -> bool:
    """Whether `network` computes this architecture."""
    return architecture in _SHAPES


def network(spec: NetworkSpec, weights: Mapping[str, Any], torch: Any) -> Callable[[Any], Any]:
    """The forward function: (N, C, H, W) float32 → (N, classes) logits in the dtype of the weights.

    weights: name → tensor, with BatchNorm folded.
    Raises ValueError for an architecture that is not known here, and for missing or unknown weights.
    """
    if not is_known(spec.architecture):
        raise ValueError(f"the architecture is {spec.architecture!r}, expected one of {', '.join(_SHAPES)}.")
    shape, head = _SHAPES[spec.architecture], _HEADS[spec.head]
    layers = [*_convolutions(shape), *head]
    expected = set(chain.from_iterable((f"{name}.weight", f"{name}.bias") for name in layers))
    if wrong := sorted(expected ^ set(weights)):
        raise ValueError(
            f"its weights do not fit a {spec.architecture} with folded BatchNorm: {', '.join(wrong[:3])} "
            f"({len(wrong)} in all) {'missing' if wrong[0] in expected else 'unknown'}. Export it again."
        )
    # The memory format in which oneDNN and cuDNN convolve; otherwise they convert every feature map twice.
    last = torch.channels_last
    ordered = {
        name: tensor.contiguous(memory_format=last) if tensor.ndim == 4 else tensor.contiguous()
        for name, tensor in weights.items()
    }
    dtype = ordered[f"{shape.stem}.weight"].dtype

    def run(images: Any) -> Any:
        return _forward(shape, head, ordered, torch, images.to(dtype, memory_format=last))

    return run


def _forward(shape: _Shape, head: tuple[str, ...], weights: Mapping[str, Any], torch: Any, images: Any) -> Any:
    """Logits (He et al. 2015, table 1); a bottleneck has its stride in the 3 x 3 convolution, as in torchvision."""
    functional = torch.nn.functional

    def convolved(maps: Any, name: str, stride: int = 1) -> Any:
        weight = weights[f"{name}.weight"]
        return functional.conv2d(maps, weight, weights[f"{name}.bias"], stride, weight.shape[-1] // 2)

    maps = functional.max_pool2d(functional.relu_(convolved(images, shape.stem, 2)), 3, 2, 1)
    for index, (layer, blocks) in enumerate(shape.layers):
        for block in range(blocks):
            prefix = f"{layer}.{block}"
            stride = 2 if index and not block else 1
            shortcut = maps
            if f"{prefix}.downsample.0.weight" in weights:
                shortcut = convolved(maps, f"{prefix}.downsample.0", stride)
            for name in shape.convolutions:
                maps = convolved(maps, f"{prefix}.{name}", stride if name == shape.strided else 1)
                if name != shape.convolutions[-1]:
                    maps = functional.relu_(maps)
            maps = functional.relu_(maps.add_(shortcut))
    features = maps.mean((2, 3))
    for name in head[:-1]:
        features = functional.relu_(functional.linear(features, weights[f"{name}.weight"], weights[f"{name}.bias"]))
    return functional.linear(features, weights[f"{head[-1]}.weight"], weights[f"{head[-1]}.bias"])


def _convolutions(shape: _Shape) -> list[str]:
    names = [shape.stem]
    for index, (layer, blocks) in enumerate(shape.layers):
        names += [f"{layer}.{block}.{name}" for block in range(blocks) for name in shape.convolutions]
        if index or len(shape.convolutions) == 3:  # where the channels change
            names.append(f"{layer}.0.downsample.0")
    return names
