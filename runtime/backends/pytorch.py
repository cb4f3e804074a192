"""PyTorch: the weights of a `.safetensors` in the network that its description names, on CPU or CUDA.

The file holds tensors and text, and nothing that could run.
"""

from __future__ import annotations

from typing import Any

from stageproof.runtime.artifacts.metadata import descriptions
from stageproof.runtime.artifacts.verified_bytes import ModelFile
from stageproof.runtime.backends.networks import network
from stageproof.runtime.backends.torch_module import AT_ONCE, DEVICES, TorchBackend, imported
from stageproof.runtime.backends.torch_module import REQUIRES as TORCH
from stageproof.runtime.errors import BackendError, BundleError
from stageproof.runtime.serialization.json_fields import field, parse
from stageproof.runtime.text.hints import command

__all__ = ["AT_ONCE", "DEVICES", "FORMATS", "NAME", "REQUIRES", "load"]

NAME = "pytorch"
FORMATS = ("pytorch",)
REQUIRES = {**TORCH, "safetensors": "torch"}


def load(model: ModelFile, *, precision: str, device: str, threads: int) -> TorchBackend:
    """The network with the file's weights on `device`, computing in their own type."""
    torch = imported(device, threads)
    from safetensors import SafetensorError
    from safetensors.torch import load as tensors_of

    engine = f"torch {torch.__version__}"
    try:
        weights: dict[str, Any] = {name: value.to(device) for name, value in tensors_of(model.content).items()}
        told = next(iter(descriptions(model.path, NAME, model.content) or []), None)
    except (SafetensorError, RuntimeError, OSError, ValueError) as error:
        raise BackendError(f"{engine} cannot load {model}: {error}") from error
    if told is None:
        raise BackendError(
            f"{engine} cannot load {model}: it holds weights and does not say of which network. Export it: "
            f"{command('export', 'RUN_OR_CHECKPOINT', '--to', 'pytorch')}."
        )
    try:
        module = network(field(parse(told, str(model)), "architecture", str, str(model)), weights, torch)
    except (BundleError, ValueError) as error:
        raise BackendError(f"{engine} cannot load {model}: {error}") from error
    return TorchBackend(module, torch, device, told)
