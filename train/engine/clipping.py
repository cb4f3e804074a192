"""Gradients no longer than they may be."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn


def clip_gradients(parameters: Iterable[nn.Parameter], largest: float) -> None:
    """Scale the gradients of all `parameters` together so that their 2-norm is at most `largest`.

    As `torch.nn.utils.clip_grad_norm_`, which multiplies by 1 where there is nothing to clip: on a CPU that is a pass
    over all of the gradients for nothing; on a GPU looking would wait for the device.
    """
    trained = [parameter for parameter in parameters if parameter.grad is not None]
    norm = nn.utils.get_total_norm([parameter.grad for parameter in trained if parameter.grad is not None])
    if norm.device.type != "cpu" or not norm <= largest:  # not a number is clipped too, as torch does
        nn.utils.clip_grads_with_norm_(trained, largest, norm)
