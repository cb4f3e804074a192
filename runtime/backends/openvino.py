"""OpenVINO backend: `.xml` with `.bin`, and `.onnx`, on the CPU."""

from __future__ import annotations

import ctypes
from queue import Empty, LifoQueue
from typing import Any

import numpy as np

from stageproof.runtime.artifacts.metadata import METADATA_KEYS
from stageproof.runtime.artifacts.verified_bytes import ModelFile
from stageproof.runtime.errors import BackendError
from stageproof.runtime.system.cpus import available_cpus
from stageproof.runtime.system.offline_import import import_without

NAME = "openvino"
FORMATS = ("onnx", "openvino")
REQUIRES = {"openvino": "openvino"}
DEVICES = ("cpu",)

_REDUCED = {"bf16": ("BF16", "bf16"), "fp16": ("FP16", "f16")}
"""Precision → its name in OPTIMIZATION_CAPABILITIES, and in INFERENCE_PRECISION_HINT."""


class OpenVinoBackend:
    """A compiled model with a pool of infer requests: a request is not thread-safe."""

    def __init__(self, compiled: Any, tensor: Any, engine: str, metadata: str | None, weights: bytes | None) -> None:
        self._weights = weights  # the compiled model reads constants from this memory
        self.engine = engine
        self.metadata = metadata
        self._compiled = compiled
        self._tensor = tensor
        self._idle: LifoQueue[Any] = LifoQueue()

    def run(self, images: np.ndarray) -> np.ndarray:
        try:
            request = self._idle.get_nowait()
        except Empty:
            request = self._compiled.create_infer_request()
        try:
            # Same as request.infer([images], share_inputs=True), with half of the Python overhead.
            request.set_input_tensor(self._tensor(images, shared_memory=True))
            request.infer()
            # Copied: the request's next call overwrites its output tensor.
            return np.array(request.get_output_tensor(0).data, dtype=np.float32)
        finally:
            self._idle.put(request)


def load(model: ModelFile, *, precision: str, device: str, threads: int, concurrent_calls: int = 1) -> OpenVinoBackend:
    """The model, compiled once: for one call with all threads (PERFORMANCE_HINT: LATENCY), or for several infer
    requests with a stream each, among which the threads are divided (THROUGHPUT).
    """
    # `import openvino` sends telemetry to Intel (Google Analytics) and writes to ~/intel, unless its telemetry package
    # cannot be imported (openvino/tools/ovc/telemetry_utils.py).
    openvino = import_without("openvino", "openvino_telemetry")
    version = openvino.__version__.split("-")[0]
    try:
        core = openvino.Core()
        settings = {
            "PERFORMANCE_HINT": "LATENCY" if concurrent_calls == 1 else "THROUGHPUT",
            **({} if concurrent_calls == 1 else {"NUM_STREAMS": concurrent_calls}),
            "INFERENCE_NUM_THREADS": threads,
            # OpenVINO pins its threads to the first processors. That is slightly faster when one call uses all of them.
            # With fewer, two processes would pin their threads to the same processors while others are idle. Streams
            # are not pinned, so that they make room for the threads that read images.
            "ENABLE_CPU_PINNING": concurrent_calls == 1 and threads >= available_cpus(),
            "INFERENCE_PRECISION_HINT": _hint(precision, core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")),
        }
        network = _read(core, openvino, model)
        metadata = _metadata(network)
        compiled = core.compile_model(network, "CPU", settings)
    except RuntimeError as error:
        raise BackendError(f"openvino {version} cannot load {model}: {error}") from error
    return OpenVinoBackend(compiled, openvino.Tensor, f"openvino {version}", metadata, model.weights)


def _read(core: Any, openvino: Any, model: ModelFile) -> Any:
    """The network, read from memory: the file at a path could be replaced after its verification."""
    if model.weights is None:
        return core.read_model(model.content)
    # openvino.Tensor rejects read-only arrays but does not write to constants: share the memory as a writable array.
    start = ctypes.cast(ctypes.c_char_p(model.weights), ctypes.POINTER(ctypes.c_ubyte))
    weights = np.ctypeslib.as_array(start, (len(model.weights),))
    return core.read_model(model.content, openvino.Tensor(weights, shared_memory=True))


def _hint(precision: str, abilities: list[str]) -> str:
    """INFERENCE_PRECISION_HINT for `precision`; float32 if the CPU does not support it in hardware.

    Without the hint, OpenVINO computes float32 files in bf16 on CPUs with bf16 units, also if the requested half
    precision is not supported; both change predictions.
    """
    ability, hint = _REDUCED.get(precision, ("FP32", "f32"))
    return hint if ability in abilities else "f32"


def _metadata(model: Any) -> str | None:
    """The metadata of the network; OpenVINO stores ONNX metadata_props under rt_info/framework."""
    for key in METADATA_KEYS:
        if model.has_rt_info(path := ["framework", key]):
            return str(model.get_rt_info(path).value)
    return None
