"""`adapted`: pretrained weights for a network with another number of input channels or another image size."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from stageproof.runtime.networks.spec import NetworkSpec
from stageproof.runtime.networks.torchvision_models import head_name

_POSITIONS = "encoder.pos_embedding"


def is_of_head(name: str, model: nn.Module) -> bool:
    """Whether the tensor `name` belongs to the head of `model`, also in a file whose head has other layers."""
    return name.startswith(f"{head_name(model)}.")


def adapted(
    state: Mapping[str, torch.Tensor], model: nn.Module, network: NetworkSpec
) -> tuple[dict[str, torch.Tensor], str]:
    """The state dict fitted to `model`, and what was changed, as an addition to a sentence ("" for nothing).

    The first convolution of a file for three channels becomes, in a network for one, the mean of its weights over the
    channels. Its output is then a third of what the file's network computes for an image whose three channels are
    equal, until training the whole network adapts the layers behind it. The position embeddings of a ViT are
    interpolated to the number of patches (bicubic, torchvision's `interpolate_embeddings`).
    """
    changed, said = dict(state), ""
    name = next(name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)) + ".weight"
    if network.channels == 1 and name in changed and changed[name].ndim == 4 and changed[name].shape[1] == 3:
        changed[name] = changed[name].mean(1, keepdim=True)
        said += ", first convolution averaged over its three channels"
    own = model.state_dict().get(_POSITIONS)
    found = changed.get(_POSITIONS)
    if own is not None and found is not None and found.ndim == 3 and own.shape[1] != found.shape[1]:
        from torchvision.models.vision_transformer import interpolate_embeddings

        patch = int(model.get_submodule("conv_proj").kernel_size[0])  # type: ignore[index]
        before, size = found.shape[1] - 1, own.shape[1] - 1
        changed = dict(interpolate_embeddings(patch * round(size**0.5), patch, changed))
        said += f", position embeddings interpolated from {before} to {size} patches"
    return changed, said
