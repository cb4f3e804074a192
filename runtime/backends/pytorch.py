"""PyTorch backend: `.safetensors` weights in the architecture that its metadata names, on CPU or CUDA.

The file contains tensors and text only, no code.
"""

from __future__ import annotations

from typing import Any

from stageproof.runtime.artifacts.metadata import descriptions
from stageproof.runtime.artifacts.verified_bytes import ModelFile
from stageproof.runtime.backends.networks import network
from stageproof.runtime.backends.torch_module import DEVICES, TorchBackend, imported
from stageproof.runtime.backends.torch_module import REQUIRES as TORCH
from stageproof.runtime.errors import BackendError, BundleError
from stageproof.runtime.serialization.json_fields import field, parse
from stageproof.runtime.text.hints import command

__all__ = ["DEVICES", "FORMATS", "NAME", "REQUIRES", "load"]

NAME = "pytorch"
FORMATS = ("pytorch",)
REQUIRES = {**TORCH, "safetensors": "torch"}


def load(model: ModelFile, *, precision: str, device: str, threads: int, concurrent_calls: int = 1) -> TorchBackend:
    """The network with the file's weights on `device`, computing in their dtype."""
    torch = imported(device, threads, concurrent_calls)
    from safetensors import SafetensorError
    from safetensors.torch import load as tensors_of

    engine = f"torch {torch.__version__}"
    try:
        weights: dict[str, Any] = {name: value.to(device) for name, value in tensors_of(model.content).items()}
        metadata = next(iter(descriptions(model.path, NAME, model.content) or []), None)
    except (SafetensorError, RuntimeError, OSError, ValueError) as error:
        raise BackendError(f"{engine} cannot load {model}: {error}") from error
    if metadata is None:
        raise BackendError(
            f"{engine} cannot load {model}: it has weights but no metadata with the architecture. Export it: "
            f"{command('export', 'RUN_OR_CHECKPOINT', '--to', 'pytorch')}."
        )
    try:
        module = network(field(parse(metadata, str(model)), "architecture", str, str(model)), weights, torch)
    except (BundleError, ValueError) as error:
        raise BackendError(f"{engine} cannot load {model}: {error}") from error
    return TorchBackend(module, torch, device, metadata)
