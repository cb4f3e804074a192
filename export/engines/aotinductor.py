"""Runs AOTInductor packages for the parity gate, with the interface of a runtime backend.

Predictor never loads them, since they contain machine code.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stageproof.runtime.bundle.manifest import METADATA_KEY, TENSOR
from stageproof.runtime.errors import BackendError

if TYPE_CHECKING:
    import torch

NAME = "aotinductor"
TAKES = f"{TENSOR}, in a program over libtorch"
DEVICES = ("cpu",)
FORMATS = (NAME,)
"""Formats that `load` accepts, as in a module of `runtime.backends`."""


def load(path: Path, *, precision: str, device: str, threads: int) -> Runner:
    """The loaded package. Raises BackendError if it does not load."""
    import torch
    import torch._inductor

    torch.set_num_threads(threads)
    try:
        package = torch._inductor.aoti_load_package(str(path))
        return Runner(package, package.get_metadata().get(METADATA_KEY))
    except Exception as error:  # zip, linker and CPU errors have different exception types
        raise BackendError(f"torch {torch.__version__} cannot load {path}: {error}") from error


class Runner:
    """A loaded package with the protocol of `runtime.backends.Backend`."""

    def __init__(self, package: Callable[[torch.Tensor], torch.Tensor], metadata: str | None) -> None:
        self.engine = f"torch {version('torch').split('+')[0]}, AOTInductor"
        self.metadata = metadata
        self._package = package

    def run(self, images: np.ndarray) -> np.ndarray:
        import torch

        with torch.inference_mode():
            logits: np.ndarray = self._package(torch.from_numpy(images)).numpy()
        return logits
