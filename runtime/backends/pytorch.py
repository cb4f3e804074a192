"""PyTorch backend: `.safetensors` weights in the architecture that its metadata names, on CPU or CUDA.

The file contains tensors and text only, no code. ResNets are computed here; other networks need torchvision.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from stageproof.runtime.artifacts.metadata import descriptions, read_description
from stageproof.runtime.artifacts.verified_bytes import ModelFile
from stageproof.runtime.backends.networks import is_known, network
from stageproof.runtime.backends.torch_module import DEVICES, TorchBackend, imported
from stageproof.runtime.backends.torch_module import REQUIRES as TORCH
from stageproof.runtime.errors import BackendError, BackendUnavailable, BundleError
from stageproof.runtime.networks import torchvision_models
from stageproof.runtime.networks.spec import NetworkSpec
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
        module = _network(read_description(metadata, str(model)).model.network, weights, torch)
    except (BundleError, ValueError) as error:
        raise BackendError(f"{engine} cannot load {model}: {error}") from error
    return TorchBackend(module, torch, device, metadata)


def _network(spec: NetworkSpec, weights: dict[str, Any], torch: Any) -> Any:
    """The forward function. Raises ValueError for weights that do not fit, BackendUnavailable without torchvision."""
    if is_known(spec.architecture):
        return network(spec, weights, torch)
    if find_spec("torchvision") is None:
        raise BackendUnavailable(
            f"'{NAME}' needs the package torchvision for {spec.architecture}: pip install 'stageproof[torchvision]'. "
            "Other formats of the same bundle need none."
        )
    module = torchvision_models.loaded(spec, weights).to(memory_format=torch.channels_last)
    dtype = next(module.parameters()).dtype
    return lambda images: module(images.to(dtype, memory_format=torch.channels_last))
