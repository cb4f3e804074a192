"""Any classification network of torchvision, for other numbers of classes and channels and with another head.

Imports torch and torchvision when a function is called.
"""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import nullcontext
from difflib import get_close_matches
from typing import Any

from stageproof.runtime.networks.spec import HIDDEN, NetworkSpec, hidden_units

DROPOUT = 0.3
"""Dropout of the two-layer head, as in the published ResNet50."""


def names() -> list[str]:
    """torchvision's names of its classification networks, sorted."""
    from torchvision import models

    return list(models.list_models(module=models))


def unknown(architecture: str, known: list[str]) -> str:
    """The message for a name that is not among `known`, with the closest of them."""
    close = get_close_matches(architecture.lower().replace("-", "_"), known, 3, 0.6)
    suggestion = f" Did you mean {', '.join(close)}?" if close else ""
    return (
        f"No network is called {architecture!r}.{suggestion} Known are resnet34-gray and torchvision's classification "
        "networks, such as resnet50, densenet121, efficientnet_b0 and vit_b_16."
    )


def construct(spec: NetworkSpec) -> Any:
    """The untrained network, an nn.Module that maps (N, channels, H, W) images to (N, classes) logits.

    Auxiliary classifiers of GoogLeNet and Inception are left out. The scale of the last BatchNorm of each residual
    branch of a ResNet is initialised to zero (Goyal et al. 2017, section 5.1), so that each residual block starts as
    the identity.

    Raises ValueError for an unknown architecture, and for a head or an image size that it cannot have.
    """
    from torch import nn
    from torchvision import models

    known = names()
    if spec.architecture not in known:
        raise ValueError(unknown(spec.architecture, known))
    options: dict[str, Any] = {"num_classes": spec.classes} if spec.head == "linear" else {}
    options |= _options(spec)
    try:
        with _widths_on_cpu() if _kind(spec.architecture) is models.RegNet else nullcontext():
            model = models.get_model(spec.architecture, weights=None, **options)
    except (AssertionError, ValueError) as error:  # of ViT and MaxViT, about the image size
        raise ValueError(
            f"{spec.architecture} cannot be built for images of {spec.image_size} × {spec.image_size} pixels, expected "
            f"a multiple of {_unit(spec.architecture)}. Give it with --image-size."
        ) from error
    if spec.channels != 3:
        adapt_channels(model, spec.channels)
    if (hidden := hidden_units(spec.head)) is not None:
        replace_head(model, spec.architecture, spec.classes, hidden)
    elif isinstance(model, models.SqueezeNet):
        model.classifier.append(nn.Flatten(1))  # so that the head by itself returns logits
    return model


def loaded(spec: NetworkSpec, weights: Mapping[str, Any]) -> Any:
    """The network with these weights, in eval mode and their dtype. weights: its state dict.

    Raises ValueError for weights that do not fit; they are compared before memory for the network is taken.
    """
    import torch

    with torch.device("meta"):
        model = construct(spec)
    own = model.state_dict()
    wrong = sorted(name for name in own.keys() | weights.keys() if _shape(own, name) != _shape(weights, name))
    if wrong:
        raise ValueError(
            f"its weights do not fit a {spec.architecture} with {spec.classes} classes, {spec.channels} input channels "
            f"and a {spec.head} head: {', '.join(wrong[:3])} ({len(wrong)} in all) are missing, unknown or of another "
            "shape. Export it again."
        )
    state = OrderedDict(weights)
    state._metadata = own._metadata  # type: ignore[attr-defined]  # the versions, without which MNASNet loads nothing
    model.load_state_dict(state, assign=True)
    if any(tensor.is_meta for tensor in model.buffers()):  # tables of Swin V2 that are not part of the state dict
        kind = next(iter(model.parameters()))
        model = construct(spec).to(kind.device, kind.dtype)
        model.load_state_dict(state)
    return model.eval().requires_grad_(False)


def _shape(state: Mapping[str, Any], name: str) -> tuple[int, ...] | None:
    return tuple(state[name].shape) if name in state else None


def _options(spec: NetworkSpec) -> dict[str, Any]:
    """Arguments of torchvision's function, apart from the number of classes."""
    from torchvision import models

    name = spec.architecture
    if name in ("googlenet", "inception_v3"):
        # The published weights expect this change of normalisation, which is defined for RGB only.
        return {"aux_logits": False, "init_weights": True, "transform_input": spec.channels == 3}
    kind = _kind(name)
    if kind is models.ResNet:
        return {"zero_init_residual": True}
    if spec.image_size is not None and kind is models.VisionTransformer:
        return {"image_size": spec.image_size}
    if spec.image_size is not None and kind is models.MaxVit:
        return {"input_size": (spec.image_size, spec.image_size)}
    return {}


def _unit(architecture: str) -> int:
    """The image size of which ViT and MaxViT take multiples, pixels."""
    import torch
    from torchvision import models

    with torch.device("meta"):
        model = models.get_model(architecture, weights=None)
    # MaxViT: windows of 7 × 7 cells at a 32nd of the image size.
    return int(model.patch_size) if isinstance(model, models.VisionTransformer) else 7 * 32


def _widths_on_cpu() -> Any:
    """Context manager: torch.arange and torch.tensor are on the CPU, also under `torch.device("meta")`, where they
    would have no values. RegNet computes the widths of its layers with them, and its layers use neither."""
    import torch
    from torch.overrides import TorchFunctionMode

    class Mode(TorchFunctionMode):  # type: ignore[misc, unused-ignore]
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = dict(kwargs or {})
            if func in (torch.arange, torch.tensor):
                kwargs["device"] = "cpu"
            return func(*args, **kwargs)

    return Mode()


def _kind(architecture: str) -> Any:
    """The class of the network, as torchvision's function is annotated."""
    from torchvision import models

    return inspect.signature(models.get_model_builder(architecture), eval_str=True).return_annotation


def adapt_channels(model: Any, channels: int) -> None:
    """Replace the first convolution, which takes three channels, by one that takes `channels`, in place.

    One channel: its weights are the sums over the three, so that the network computes what it would for an image whose
    three channels are equal.
    """
    from torch import nn

    name, old = next((name, module) for name, module in model.named_modules() if isinstance(module, nn.Conv2d))
    names = ("out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
    alike: dict[str, Any] = {one: getattr(old, one) for one in names}
    new = nn.Conv2d(channels, **alike, bias=old.bias is not None)
    new.weight.data = old.weight.data.sum(1, keepdim=True).expand(-1, channels, -1, -1) / channels
    if old.bias is not None:
        assert new.bias is not None, "the new convolution was made with the bias of the old one"
        new.bias.data = old.bias.data
    _set(model, name, new)


def replace_head(model: Any, architecture: str, classes: int, hidden: int = HIDDEN) -> None:
    """Put the two-layer head in the place of the last fully connected layer, in place. Raises ValueError for a network
    without one."""
    from torch import nn

    name = head_name(model)
    old = model.get_submodule(name)
    if not isinstance(old, nn.Linear):
        raise ValueError(f"{architecture} classifies by a convolution: it has no two-layer head, only a linear one.")
    layers = (nn.Linear(old.in_features, hidden), nn.ReLU(inplace=True), nn.Dropout(DROPOUT))
    _set(model, name, nn.Sequential(*layers, nn.Linear(hidden, classes)))


def head_name(model: Any) -> str:
    """Name of the head in `model`: the last fully connected layer, or the two-layer head that took its place.

    SqueezeNet has no such layer; its head is `classifier`, whose convolution computes logits at each position.
    """
    from torch import nn

    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        return "classifier"
    above = linear[-1].rpartition(".")[0]
    kinds = (nn.Linear, nn.ReLU, nn.Dropout, nn.Linear)
    layers = list(model.get_submodule(above).children()) if above else []
    two = len(layers) == len(kinds) and all(isinstance(*pair) for pair in zip(layers, kinds, strict=True))
    return above if two else linear[-1]


def _set(model: Any, name: str, module: Any) -> None:
    above, _, last = name.rpartition(".")
    setattr(model.get_submodule(above), last, module)
