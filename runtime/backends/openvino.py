"""OpenVINO: its own `.xml` with `.bin`, and `.onnx` directly, on CPU."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from itertools import cycle
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
AT_ONCE = ("cpu",)

_REDUCED = {"bf16": ("BF16", "bf16"), "fp16": ("FP16", "f16")}
"""Precision → what OpenVINO calls it among a CPU's abilities, and as a hint."""


class OpenVinoBackend:
    """Compiled models with a pool of infer requests: one request must never serve two threads at once."""

    def __init__(
        self, compiled: Sequence[Any], tensor: Any, engine: str, metadata: str | None, weights: bytes | None
    ) -> None:
        self._weights = weights  # compiled models go on reading them where they lie
        self.engine = engine
        self.metadata = metadata
        self._compiled = cycle(compiled)
        self._tensor = tensor
        self._idle: LifoQueue[Any] = LifoQueue()

    def run(self, images: np.ndarray) -> np.ndarray:
        try:
            request = self._idle.get_nowait()
        except Empty:
            request = next(self._compiled).create_infer_request()
        try:
            # Half as much Python as request.infer([images], share_inputs=True), which does the same.
            request.set_input_tensor(self._tensor(images, shared_memory=True))
            request.infer()
            # The tensor belongs to the request, whose next call overwrites it.
            return np.array(request.get_output_tensor(0).data, dtype=np.float32)
        finally:
            self._idle.put(request)


def load(model: ModelFile, *, precision: str, device: str, threads: int, at_once: int = 1) -> OpenVinoBackend:
    """A model compiled for `at_once` calls at a time, which share `threads` CPU threads.

    It is compiled once for each of them. One with several streams would run them in threads of its own, and the system
    puts those and the callers' threads on one processor while another idles: a twentieth of a stream's time.
    """
    # `import openvino` reports itself to a Google Analytics property of Intel and writes to ~/intel, unless its
    # telemetry package cannot be imported (openvino/tools/ovc/telemetry_utils.py).
    openvino = import_without("openvino", "openvino_telemetry")
    version = openvino.__version__.split("-")[0]
    threads = max(1, threads // at_once)
    try:
        core = openvino.Core()
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            # It ties its threads to the first processors, which with all of them is a little faster. With fewer, the
            # threads of two processes would share a processor while others are idle.
            "ENABLE_CPU_PINNING": threads >= available_cpus(),
            "INFERENCE_PRECISION_HINT": _hint(precision, core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")),
        }
        network = _read(core, openvino, model)
        metadata = _metadata(network)
        compiled = [core.compile_model(network, "CPU", settings) for _ in range(at_once)]
    except RuntimeError as error:
        raise BackendError(f"openvino {version} cannot load {model}: {error}") from error
    return OpenVinoBackend(compiled, openvino.Tensor, f"openvino {version}", metadata, model.weights)


def _read(core: Any, openvino: Any, model: ModelFile) -> Any:
    """The network, from memory: a path that OpenVINO opens could be another file by then."""
    if model.weights is None:
        return core.read_model(model.content)
    # OpenVINO takes no read-only array, and writes to none of its constants: the same memory, not declared so.
    start = ctypes.cast(ctypes.c_char_p(model.weights), ctypes.POINTER(ctypes.c_ubyte))
    weights = np.ctypeslib.as_array(start, (len(model.weights),))
    return core.read_model(model.content, openvino.Tensor(weights, shared_memory=True))


def _hint(precision: str, abilities: list[str]) -> str:
    """The type to compute in; float32 where the CPU has no units for `precision`, whose weights are then widened.

    On CPUs with bf16 units OpenVINO's default computes a float32 file in bf16, and so it does with one that is asked
    for in a half precision that the CPU lacks; both move decisions.
    """
    ability, hint = _REDUCED.get(precision, ("FP32", "f32"))
    return hint if ability in abilities else "f32"


def _metadata(model: Any) -> str | None:
    """ONNX metadata_props arrive under rt_info/framework."""
    for key in METADATA_KEYS:
        if model.has_rt_info(path := ["framework", key]):
            return str(model.get_rt_info(path).value)
    return None
