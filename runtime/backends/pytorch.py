"""PyTorch: the weights of a `.safetensors` in the network that its description names, on CPU or CUDA.

The file holds tensors and text, and nothing that could run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from runtime.backends.networks import network
from runtime.backends.torch_module import AT_ONCE, DEVICES, TorchBackend, imported
from runtime.backends.torch_module import REQUIRES as TORCH
from runtime.errors import BackendError, BundleError
from runtime.fields import field, parse

__all__ = ["AT_ONCE", "DEVICES", "FORMATS", "NAME", "REQUIRES", "load"]

NAME = "pytorch"
FORMATS = ("pytorch",)
REQUIRES = {**TORCH, "safetensors": "torch"}

_KEY = "neurostage"


def load(path: Path, *, precision: str, device: str, threads: int) -> TorchBackend:
    """The network with the file's weights on `device`, computing in their own type."""
    torch = imported(device, threads)
    from safetensors import SafetensorError, safe_open

    engine = f"torch {torch.__version__}"
    try:
        with safe_open(path, framework="pt", device=device) as file:
            told = (file.metadata() or {}).get(_KEY)
            weights: dict[str, Any] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, RuntimeError, OSError, ValueError) as error:
        raise BackendError(f"{engine} cannot load {path}: {error}") from error
    if told is None:
        raise BackendError(
            f"{engine} cannot load {path}: it holds weights and does not say of which network. Export it: "
            "python -m export RUN_OR_CHECKPOINT --to pytorch."
        )
    try:
        module = network(field(parse(told, str(path)), "architecture", str, str(path)), weights, torch)
    except (BundleError, ValueError) as error:
        raise BackendError(f"{engine} cannot load {path}: {error}") from error
    return TorchBackend(module, torch, device, told)
