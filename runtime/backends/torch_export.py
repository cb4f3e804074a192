"""torch.export: `.pt2` through PyTorch, on CPU or CUDA."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from runtime.errors import BackendError, BackendUnavailable

NAME = "torch-export"
FORMATS = ("torch-export",)
REQUIRES = {"torch": "torch"}


class TorchExportBackend:
    """An exported program in inference mode."""

    def __init__(self, module: Any, torch: Any, device: str, metadata: str | None) -> None:
        self.engine = f"torch {torch.__version__.split('+')[0]}"
        self.metadata = metadata
        self._module = module
        self._torch = torch
        self._device = device

    def run(self, images: np.ndarray) -> np.ndarray:
        with self._torch.inference_mode():
            logits = self._module(self._torch.from_numpy(images).to(self._device))
        result: np.ndarray = logits.float().cpu().numpy()
        return result


def load(path: Path, *, precision: str, device: str, threads: int) -> TorchExportBackend:
    """The program on `device`. PyTorch's thread count belongs to the process: `threads` is set for all of it."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise BackendUnavailable(f"torch {torch.__version__} sees no CUDA device. Ask for device='cpu'.")
    torch.set_num_threads(threads)
    extra: dict[str, Any] = {"neurostage": ""}
    try:
        program = torch.export.load(path, extra_files=extra)
        module = program.module().to(device)
    except Exception as error:  # zip, JSON and schema errors, each of its own kind
        raise BackendError(f"torch {torch.__version__} cannot load {path}: {error}") from error
    metadata = extra["neurostage"]
    text = metadata.decode() if isinstance(metadata, bytes) else metadata
    return TorchExportBackend(module, torch, device, text or None)
