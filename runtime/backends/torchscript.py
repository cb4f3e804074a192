"""TorchScript: `.ts` through PyTorch, on CPU or CUDA. Such a file is a program, which can read and write files.

Its functions run when the file is loaded and at every image, and may never end. Only files of a trusted maker are
loaded; docs/SECURITY-MODELS.md.
"""

from __future__ import annotations

import io
import warnings
from typing import Any

from stageproof.runtime.artifacts.verified_bytes import ModelFile
from stageproof.runtime.backends.torch_module import AT_ONCE, DEVICES, REQUIRES, TorchBackend, description_key, imported
from stageproof.runtime.errors import BackendError

__all__ = ["AT_ONCE", "DEVICES", "FORMATS", "NAME", "REQUIRES", "load"]

NAME = "torchscript"
FORMATS = ("torchscript",)


def load(model: ModelFile, *, precision: str, device: str, threads: int) -> TorchBackend:
    """The frozen module on `device`."""
    torch = imported(device, threads)
    key = description_key(model.content)
    extra: dict[str, str | bytes] = {key: ""}
    try:
        with warnings.catch_warnings():
            # Deprecated since torch 2.9, still asked for: export says so once, a predictor need not.
            warnings.simplefilter("ignore", FutureWarning)
            module = torch.jit.load(io.BytesIO(model.content), map_location=device, _extra_files=extra)
    except (RuntimeError, ValueError) as error:
        raise BackendError(f"torch {torch.__version__} cannot load {model}: {error}") from error
    module = module.eval()
    return TorchBackend(module if device == "cuda" else _plainly(module, torch), torch, device, extra[key])


def _plainly(module: Any, torch: Any) -> Any:
    """The module, run as it was frozen: the profiling executor doubles the first run and gains nothing later."""

    def run(images: Any) -> Any:
        with torch.jit.optimized_execution(False):  # it holds for this thread only
            return module(images)

    return run
