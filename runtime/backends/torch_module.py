"""Shared code of the backends that run in PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np

from stageproof.runtime.artifacts.metadata import METADATA_KEY, METADATA_KEYS
from stageproof.runtime.errors import BackendUnavailable

REQUIRES = {"torch": "torch"}
DEVICES = ("cpu", "cuda")


class TorchBackend:
    """A PyTorch module run in inference mode; the forward pass is thread-safe."""

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
    """The key among `METADATA_KEYS` under which this PyTorch archive stores its metadata."""
    return next((key for key in METADATA_KEYS if f"/extra/{key}".encode() in content), METADATA_KEY)


def imported(device: str, threads: int, concurrent_calls: int) -> Any:
    """The module torch. Sets the thread count of each call, for the whole process. Raises BackendUnavailable without
    `device`."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise BackendUnavailable(f"torch {torch.__version__} finds no CUDA device. Use device='cpu'.")
    torch.set_num_threads(max(1, threads // concurrent_calls))
    return torch
