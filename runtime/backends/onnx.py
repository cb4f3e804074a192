"""ONNX Runtime backend: `.onnx` on the CPU, on CUDA, and on CUDA through TensorRT."""

from __future__ import annotations

from typing import Any

import numpy as np

from stageproof.runtime.artifacts.metadata import METADATA_KEYS
from stageproof.runtime.artifacts.verified_bytes import ModelFile
from stageproof.runtime.errors import BackendError, BackendUnavailable
from stageproof.runtime.system.offline_import import import_onnxruntime

NAME = "onnx"
FORMATS = ("onnx",)
REQUIRES = {"onnxruntime": "onnx"}

_PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
DEVICES = tuple(_PROVIDERS)

WRONG_OPTIMIZERS = {"fp8": ["ReluQuantRewrite"]}
"""Precision → optimizers to disable. ReluQuantRewrite removes a ReLU before QuantizeLinear, as if values below the zero
point were clipped; that holds for uint8 but not for 8-bit floats (onnxruntime 1.32, relu_quantizelinear.cc)."""


class OnnxBackend:
    """An ONNX Runtime session; `InferenceSession.run` is thread-safe."""

    def __init__(self, session: Any, engine: str, metadata: str | None) -> None:
        self.engine = engine
        self.metadata = metadata
        self._session = session
        self._input = session.get_inputs()[0].name
        self._output = session.get_outputs()[0].name

    def run(self, images: np.ndarray) -> np.ndarray:
        logits: np.ndarray = self._session.run([self._output], {self._input: images})[0]
        return logits


def load(model: ModelFile, *, precision: str, device: str, threads: int, concurrent_calls: int = 1) -> OnnxBackend:
    """A session that runs every operation on `device`. Concurrent calls share it, each with its part of the threads.

    Raises BackendUnavailable if some operation is not supported there; by default, ONNX Runtime would fall back to the
    CPU.
    """
    onnxruntime = import_onnxruntime()

    engine = f"onnxruntime {onnxruntime.__version__}"
    provider = _PROVIDERS[device]
    if provider not in onnxruntime.get_available_providers():
        raise BackendUnavailable(
            f"{engine} has no provider for device {device!r} (available: "
            f"{', '.join(onnxruntime.get_available_providers())}). For CUDA, replace it by onnxruntime-gpu: "
            "pip uninstall onnxruntime; pip install 'stageproof[gpu]'."
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = max(1, threads // concurrent_calls)  # with 1, a call runs in the caller's thread
    options.log_severity_level = 3  # errors only: warnings would be printed to the host program's stderr
    if device != "cpu":
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    try:
        # The fallback, enabled by default, switches to the CPU when loading or running fails, and prints a message.
        session = onnxruntime.InferenceSession(
            model.content,
            options,
            providers=[provider],
            disabled_optimizers=WRONG_OPTIMIZERS.get(precision),
            enable_fallback=0,
        )
        session._model_bytes = None  # kept for the fallback; frees as much memory as the file has
        if session.get_providers()[0] != provider:
            raise RuntimeError(f"it uses {session.get_providers()[0]} instead.")
    except Exception as error:  # onnxruntime's exceptions have no other common base class
        if device == "cpu":
            raise BackendError(f"{engine} cannot load {model}: {error}") from error
        raise BackendUnavailable(
            f"{engine} cannot run {model.path.name} with {provider}: {error} Check the driver and the CUDA, cuDNN and "
            "TensorRT versions that this onnxruntime-gpu needs, or use device='cpu'."
        ) from error
    texts = session.get_modelmeta().custom_metadata_map
    metadata = next((texts[key] for key in METADATA_KEYS if key in texts), None)
    return OnnxBackend(session, engine if device == "cpu" else f"{engine} {provider}", metadata)
