"""ONNX Runtime: `.onnx` on CPU or CUDA."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from runtime.errors import BackendError, BackendUnavailable

NAME = "onnx"
FORMATS = ("onnx",)
REQUIRES = {"onnxruntime": "onnx"}

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class OnnxBackend:
    """An ONNX Runtime session; `InferenceSession.run` is safe from several threads."""

    def __init__(self, session: Any, engine: str, metadata: str | None) -> None:
        self.engine = engine
        self.metadata = metadata
        self._session = session
        self._input = session.get_inputs()[0].name
        self._output = session.get_outputs()[0].name

    def run(self, images: np.ndarray) -> np.ndarray:
        logits: np.ndarray = self._session.run([self._output], {self._input: images})[0]
        return logits


def load(path: Path, *, precision: str, device: str, threads: int) -> OnnxBackend:
    """A session on `device`. Raises BackendUnavailable rather than fall from CUDA to the CPU."""
    import onnxruntime

    provider = _PROVIDERS.get(device)
    if provider not in onnxruntime.get_available_providers():
        raise BackendUnavailable(
            f"onnxruntime {onnxruntime.__version__} has no provider for device {device!r} "
            f"(it has {', '.join(onnxruntime.get_available_providers())}). For CUDA replace it by onnxruntime-gpu: "
            "pip uninstall onnxruntime; pip install 'neurostage[gpu]'."
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors only: its warnings go to stderr, where a host's own log may be
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=[provider])
    except Exception as error:  # its exceptions share no class but this one
        raise BackendError(f"onnxruntime {onnxruntime.__version__} cannot load {path}: {error}") from error
    got = session.get_providers()[0]
    if got != provider:
        raise BackendUnavailable(
            f"{path.name}: {provider} was asked for and onnxruntime gave {got}. Check the CUDA and cuDNN versions that "
            f"onnxruntime-gpu {onnxruntime.__version__} needs, or ask for device='cpu'."
        )
    metadata = session.get_modelmeta().custom_metadata_map.get("neurostage")
    return OnnxBackend(session, f"onnxruntime {onnxruntime.__version__}", metadata)
