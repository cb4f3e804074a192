"""What the backends that run through PyTorch share."""

from __future__ import annotations

from typing import Any

import numpy as np

from stageproof.runtime.artifacts.metadata import METADATA_KEY, METADATA_KEYS
from stageproof.runtime.errors import BackendUnavailable

REQUIRES = {"torch": "torch"}
DEVICES = ("cpu", "cuda")
AT_ONCE = ()  # torch has one number of threads for the whole process


class TorchBackend:
    """A module of PyTorch's in inference mode; a forward pass is safe from several threads."""

    def __init__(self, module: Any, torch: Any, device: str, metadata: str | bytes) -> None:
        self.engine = f"torch {torch.__version__.split('+')[0]}"
        self.metadata = (metadata.decode() if isinstance(metadata, bytes) else metadata) or None
        self._module = module
        self._torch = torch
        self._device = device

    def run(self, images: np.ndarray) -> np.ndarray:
        with self._torch.inference_mode():
            logits = self._module(self._torch.from_numpy(images).to(self._device))
        result: np.ndarray = logits.float().cpu().numpy()
        return result


def description_key(content: bytes) -> str:
    """Under which of `METADATA_KEYS` this archive of PyTorch's holds its description."""
    return next((key for key in METADATA_KEYS if f"/extra/{key}".encode() in content), METADATA_KEY)


def imported(device: str, threads: int) -> Any:
    """PyTorch, once `device` is there. Its thread count belongs to the process: `threads` is set for all of it."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise BackendUnavailable(f"torch {torch.__version__} sees no CUDA device. Ask for device='cpu'.")
    torch.set_num_threads(threads)
    return torch
