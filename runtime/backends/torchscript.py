"""TorchScript: `.ts` through PyTorch, on CPU or CUDA."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from runtime.errors import BackendError, BackendUnavailable

NAME = "torchscript"
FORMATS = ("torchscript",)
REQUIRES = {"torch": "torch"}


class TorchScriptBackend:
    """A frozen TorchScript module in inference mode."""

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


def load(path: Path, *, precision: str, device: str, threads: int) -> TorchScriptBackend:
    """The module on `device`. PyTorch's thread count belongs to the process: `threads` is set for all of it."""
    import warnings

    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise BackendUnavailable(f"torch {torch.__version__} sees no CUDA device. Ask for device='cpu'.")
    torch.set_num_threads(threads)
    extra: dict[str, str | bytes] = {"neurostage": ""}
    try:
        with warnings.catch_warnings():
            # Deprecated since torch 2.9, still asked for: export says so once, a predictor need not.
            warnings.simplefilter("ignore", FutureWarning)
            module = torch.jit.load(str(path), map_location=device, _extra_files=extra)
    except (RuntimeError, ValueError) as error:
        raise BackendError(f"torch {torch.__version__} cannot load {path}: {error}") from error
    metadata = extra["neurostage"]
    text = metadata.decode() if isinstance(metadata, bytes) else metadata
    return TorchScriptBackend(module.eval(), torch, device, text or None)
