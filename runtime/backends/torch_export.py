"""torch.export: `.pt2` through PyTorch, on CPU or CUDA.

PyTorch makes its cache folder, which stays empty, where temporary files go as soon as this part of it is imported.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from runtime.backends.torch_module import AT_ONCE, DEVICES, REQUIRES, TorchBackend, imported
from runtime.errors import BackendError

__all__ = ["AT_ONCE", "DEVICES", "FORMATS", "NAME", "REQUIRES", "load"]

NAME = "torch-export"
FORMATS = ("torch-export",)


def load(path: Path, *, precision: str, device: str, threads: int) -> TorchBackend:
    """The program on `device`."""
    torch = imported(device, threads)
    extra: dict[str, Any] = {"neurostage": ""}
    try:
        module = torch.export.load(path, extra_files=extra).module().to(device)
    except Exception as error:  # zip, JSON and schema errors, each of its own kind
        raise BackendError(f"torch {torch.__version__} cannot load {path}: {error}") from error
    return TorchBackend(module, torch, device, extra["neurostage"])
