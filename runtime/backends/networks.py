"""The two networks as plain functions of their weights, without the packages that trained them.

`train.models` builds the same networks with BatchNorm apart; here it has been folded into the convolution before it, so
that every convolution has a weight and a bias. Names are those of the published checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any


@dataclass(frozen=True)
class _Shape:
    """What differs between one residual network and another."""

    stem: str
    """The first convolution, 7 x 7 with stride 2."""
    layers: tuple[tuple[str, int], ...]
    """Name and number of blocks of each; all but the first begin with stride 2."""
    convolutions: tuple[str, ...]
    """Of a block, in order."""
    strided: str
    """That of them which takes the stride of its layer."""
    head: tuple[str, ...]
    """Fully connected layers, with ReLU between them."""


_SHAPES = {
    "resnet50": _Shape(
        "conv1",
        (("layer1", 3), ("layer2", 4), ("layer3", 6), ("layer4", 3)),
        ("conv1", "conv2", "conv3"),
        "conv2",
        ("fc.0", "fc.3"),
    ),
    "resnet34-gray": _Shape(
        "conv1.0",
        (("layer0", 3), ("layer1", 4), ("layer2", 6), ("layer3", 3)),
        ("conv1.0", "conv2.0"),
        "conv1.0",
        ("fc",),
    ),
}
"""By architecture, as `train.models.ARCHITECTURES` calls them."""


def network(architecture: str, weights: Mapping[str, Any], torch: Any) -> Callable[[Any], Any]:
    """(N, C, H, W) float32 → (N, classes), in the type of the weights.

    weights: by name, BatchNorm folded.
    Raises ValueError for an architecture that is not known, and for weights that are not this network's.
    """
    if architecture not in _SHAPES:
        raise ValueError(f"no network is called {architecture!r}; this runtime knows {', '.join(_SHAPES)}.")
    shape = _SHAPES[architecture]
    expected = set(chain.from_iterable((f"{name}.weight", f"{name}.bias") for name in _names(shape)))
    if wrong := sorted(expected ^ set(weights)):
        raise ValueError(
            f"its weights are not those of a {architecture} whose BatchNorm is folded: {', '.join(wrong[:3])} "
            f"({len(wrong)} in all) {'lacking' if wrong[0] in expected else 'unknown'}. Export it again."
        )
    # The order in memory in which oneDNN and cuDNN convolve; otherwise they turn every map before and after.
    last = torch.channels_last
    ordered = {
        name: tensor.contiguous(memory_format=last) if tensor.ndim == 4 else tensor.contiguous()
        for name, tensor in weights.items()
    }
    dtype = ordered[f"{shape.stem}.weight"].dtype

    def run(images: Any) -> Any:
        return _forward(shape, ordered, torch, images.to(dtype, memory_format=last))

    return run


def _forward(shape: _Shape, weights: Mapping[str, Any], torch: Any, images: Any) -> Any:
    """He et al. 2015, table 1, with the stride of a bottleneck in its 3 x 3 convolution, as torchvision has it."""
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
    for name in shape.head[:-1]:
        features = functional.relu_(functional.linear(features, weights[f"{name}.weight"], weights[f"{name}.bias"]))
    return functional.linear(features, weights[f"{shape.head[-1]}.weight"], weights[f"{shape.head[-1]}.bias"])


def _names(shape: _Shape) -> list[str]:
    """Every convolution and fully connected layer."""
    names = [shape.stem, *shape.head]
    for index, (layer, blocks) in enumerate(shape.layers):
        names += [f"{layer}.{block}.{name}" for block in range(blocks) for name in shape.convolutions]
        if index or len(shape.convolutions) == 3:  # where the channels change
            names.append(f"{layer}.0.downsample.0")
    return names
