"""`backbone_features`: computes the features of a frozen backbone once, so that the head can be trained on them."""

from __future__ import annotations

import torch
from torch import nn

from stageproof.train.data.batches import Batches
from stageproof.train.networks import head_of


def backbone_features(model: nn.Module, batches: Batches, amp: torch.dtype | None) -> torch.Tensor:
    """(K, ...) float32 inputs of the head for each slice of `batches`, in order, on the device of `batches`: (K, F)
    features, or (K, F, h, w) of SqueezeNet, whose head is a convolution."""
    head, taken = head_of(model), []
    spec = batches.spec
    assert spec is not None, "features are computed from images"

    def keep(_: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        taken.append(inputs[0].float())

    model.eval()
    hook = head.register_forward_pre_hook(keep)
    try:
        with torch.no_grad(), torch.autocast(batches.device.type, amp, enabled=amp is not None):
            for batch in batches.in_order():
                model(batch.inputs)
            if not taken:  # this process has no slice: there are fewer slices than processes
                model(torch.zeros(1, *spec.shape, device=batches.device))
                taken[0] = taken[0][:0]
    finally:
        hook.remove()
    return batches.processes.gather(torch.cat(taken), len(batches.chosen))
