"""torch.export backend: `.pt2` through PyTorch, on CPU or CUDA. The file is a program, and loading it runs code.

PyTorch evaluates its shape expressions and unpickles its objects; if unpickling with ``weights_only`` fails, it retries
without. `runtime.artifacts.torch_archive` therefore rejects all pickles other than those of tensors beforehand.
Importing this part of PyTorch creates an empty cache folder in the system's temporary folder.
"""

from __future__ import annotations

import io
from typing import Any

from stageproof.runtime.artifacts.verified_bytes import ModelFile
from stageproof.runtime.backends.torch_module import DEVICES, REQUIRES, TorchBackend, description_key, imported
from stageproof.runtime.errors import BackendError

__all__ = ["DEVICES", "FORMATS", "NAME", "REQUIRES", "load"]

NAME = "torch-export"
FORMATS = ("torch-export",)


def load(model: ModelFile, *, precision: str, device: str, threads: int, concurrent_calls: int = 1) -> TorchBackend:
    """The program on `device`."""
    torch = imported(device, threads, concurrent_calls)
    key = description_key(model.content)
    extra: dict[str, Any] = {key: ""}
    try:
        module = torch.export.load(io.BytesIO(model.content), extra_files=extra).module().to(device)
    except Exception as error:  # zip, JSON and schema errors, without a common base class
        raise BackendError(f"torch {torch.__version__} cannot load {model}: {error}") from error
    return TorchBackend(module, torch, device, extra[key])
