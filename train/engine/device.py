"""Where and in what arithmetic a run computes."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from stageproof.runtime.errors import InputError


@dataclass(frozen=True)
class Compute:
    """A device, and the dtype that autocast uses on it."""

    device: torch.device
    amp: torch.dtype | None
    """None: float32 throughout."""

    @property
    def arithmetic(self) -> str:
        """``float32``, ``bfloat16`` or ``float16``."""
        return str(self.amp or torch.float32).removeprefix("torch.")


def choose_compute(device: str, precision: str) -> Compute:
    """What `--device` and `--precision` stand for on this machine. Raises InputError for a device that is not here."""
    cuda = torch.cuda.is_available()
    if device == "cuda" and not cuda:
        raise InputError("--device cuda was asked for and torch sees no CUDA device. Use --device cpu.")
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
