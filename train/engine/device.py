"""Chooses the device and the precision of a run."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from stageproof.runtime.errors import InputError


@dataclass(frozen=True)
class Compute:
    """A device and the dtype of autocast on it."""

    device: torch.device
    amp: torch.dtype | None
    """None: no autocast, everything in float32."""

    @property
    def arithmetic(self) -> str:
        """``float32``, ``bfloat16`` or ``float16``."""
        return str(self.amp or torch.float32).removeprefix("torch.")


def choose_compute(device: str, precision: str) -> Compute:
    """The device and dtype for `--device` and `--precision` on this machine. Raises InputError for cuda without GPU."""
    cuda = torch.cuda.is_available()
    if device == "cuda" and not cuda:
        raise InputError("--device is cuda, but torch finds no CUDA device. Use --device cpu.")
    chosen = torch.device("cuda" if cuda and device != "cpu" else "cpu")
    if precision == "auto":
        precision = _best_precision(chosen)
    return Compute(chosen, {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision])


def _best_precision(device: torch.device) -> str:
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    # Autocast on a CPU without bf16 units is slower than float32.
    cpu: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return "bf16" if cpu.get("avx512_bf16") or cpu.get("amx_bf16") else "fp32"
