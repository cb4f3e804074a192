"""torch.export: `.pt2` through PyTorch, on CPU or CUDA. Such a file is a program, and loading it runs code.

PyTorch evaluates the expressions for shapes in it, and unpickles what it holds: where reading tensors alone fails, it
tries again without that limit. `runtime.artifacts.torch_archive` therefore refuses every pickle but those of tensors
before. PyTorch makes its cache folder, which stays empty, where temporary files go as soon as this part of it is
imported.
"""

from __future__ import annotations

import io
from typing import Any

from stageproof.runtime.artifacts.verified_bytes import ModelFile
from stageproof.runtime.backends.torch_module import AT_ONCE, DEVICES, REQUIRES, TorchBackend, description_key, imported
from stageproof.runtime.errors import BackendError

__all__ = ["AT_ONCE", "DEVICES", "FORMATS", "NAME", "REQUIRES", "load"]

NAME = "torch-export"
FORMATS = ("torch-export",)


def load(model: ModelFile, *, precision: str, device: str, threads: int) -> TorchBackend:
    """The program on `device`."""
    torch = imported(device, threads)
    key = description_key(model.content)
    extra: dict[str, Any] = {key: ""}
    try:
        module = torch.export.load(io.BytesIO(model.content), extra_files=extra).module().to(device)
    except Exception as error:  # zip, JSON and schema errors, each of its own kind
        raise BackendError(f"torch {torch.__version__} cannot load {model}: {error}") from error
    return TorchBackend(module, torch, device, extra[key])
