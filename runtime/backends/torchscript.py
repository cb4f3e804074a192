"""TorchScript backend: `.ts` through PyTorch, on CPU or CUDA. The file is a program, which can read and write files.

Its functions run on loading and for every image, and may not terminate. Only trusted files are loaded; see
docs/SECURITY-MODELS.md.
"""

from __future__ import annotations

import io
import warnings
from typing import Any

from stageproof.runtime.artifacts.verified_bytes import ModelFile
from stageproof.runtime.backends.torch_module import DEVICES, REQUIRES, TorchBackend, description_key, imported
from stageproof.runtime.errors import BackendError

__all__ = ["DEVICES", "FORMATS", "NAME", "REQUIRES", "load"]

NAME = "torchscript"
FORMATS = ("torchscript",)


def load(model: ModelFile, *, precision: str, device: str, threads: int, concurrent_calls: int = 1) -> TorchBackend:
    """The frozen module on `device`."""
    torch = imported(device, threads, concurrent_calls)
    key = description_key(model.content)
    extra: dict[str, str | bytes] = {key: ""}
    try:
        with warnings.catch_warnings():
            # TorchScript is deprecated since torch 2.9. The export warns about it; a predictor need not.
            warnings.simplefilter("ignore", FutureWarning)
            module = torch.jit.load(io.BytesIO(model.content), map_location=device, _extra_files=extra)
    except (RuntimeError, ValueError) as error:
        raise BackendError(f"torch {torch.__version__} cannot load {model}: {error}") from error
    module = module.eval()
    return TorchBackend(module if device == "cuda" else _plainly(module, torch), torch, device, extra[key])


def _plainly(module: Any, torch: Any) -> Any:
    """The module without the profiling executor, which doubles the time of the first run and gains nothing later."""

    def run(images: Any) -> Any:
        with torch.jit.optimized_execution(False):  # thread-local setting
            return module(images)

    return run
