"""TensorRT backend: `.engine` files on CUDA, of `tensorrt` and of TensorRT for RTX. An engine is machine code.

The engine file has NVIDIA's own format. An engine only runs with the product, version and GPU architecture that it was
built for; with any other, loading raises BackendError.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from importlib import import_module
from importlib.util import find_spec
from itertools import pairwise
from queue import Empty, LifoQueue
from types import ModuleType
from typing import Any

import numpy as np

from stageproof.runtime.artifacts.verified_bytes import ModelFile
from stageproof.runtime.errors import BackendError, BackendUnavailable
from stageproof.runtime.text.hints import command

NAME = "tensorrt"
FORMATS = ("tensorrt",)
FLAVOURS = {"tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt-rtx", "tensorrt_rtx_bindings": "tensorrt-rtx"}
"""Importable module → name in the manifest; the first installed one is used."""
REQUIRES = {"|".join(FLAVOURS): "tensorrt", "cuda.bindings": "tensorrt"}
DEVICES = ("cuda", "tensorrt")


class TensorRtBackend:
    """A deserialised engine with a pool of execution contexts, which are not thread-safe."""

    metadata = None  # the format has no metadata

    def __init__(self, engine: Any, cuda: ModuleType, name: str, messages: Iterable[str]) -> None:
        self.engine = name
        self._engine = engine
        self._cuda = cuda
        self._messages = messages
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        kinds = [str(engine.get_tensor_mode(entry)).rpartition(".")[2] for entry in names]
        if sorted(kinds) != ["INPUT", "OUTPUT"]:
            raise BackendError(f"The engine has the tensors {names}; expected one input and one output. Export again.")
        self._input, self._output = names[kinds.index("INPUT")], names[kinds.index("OUTPUT")]
        least, _, most = (tuple(shape) for shape in engine.get_tensor_profile_shape(self._input, 0))
        self._smallest, self._largest = least[0], most[0]
        self._shape = most[1:]
        self._classes = tuple(engine.get_tensor_shape(self._output))[1]
        self._idle: LifoQueue[_Lane] = LifoQueue()
        self._making = threading.Lock()

    def run(self, images: np.ndarray) -> np.ndarray:
        lane = self._lane()
        try:
            cuts = [*range(0, len(images), self._largest), len(images)]
            return np.concatenate([self._piece(lane, images[first:last]) for first, last in pairwise(cuts)])
        finally:
            self._idle.put(lane)

    def _piece(self, lane: _Lane, images: np.ndarray) -> np.ndarray:
        """Logits of at most the engine's largest batch; smaller batches are padded to its smallest."""
        count = len(images)
        if count < self._smallest:
            padding = np.zeros((self._smallest - count, *images.shape[1:]), np.float32)
            images = np.concatenate([images, padding])
        return lane.run(np.ascontiguousarray(images), (len(images), self._classes))[:count]

    def _lane(self) -> _Lane:
        try:
            return self._idle.get_nowait()
        except Empty:
            with self._making:  # the engine is not thread-safe either
                context = self._engine.create_execution_context()
            if context is None:
                raise BackendError(
                    f"{self.engine} cannot create an execution context: {'; '.join(self._messages)}"
                ) from None
            sizes = (self._largest * int(np.prod(self._shape)) * 4, self._largest * self._classes * 4)
            return _Lane(context, self._cuda, (self._input, self._output), sizes, self._messages)


class _Lane:
    """An execution context with its own CUDA stream and device memory for the largest batch."""

    def __init__(
        self, context: Any, cuda: ModuleType, names: tuple[str, str], sizes: tuple[int, int], messages: Iterable[str]
    ) -> None:
        self._context = context
        self._cuda = cuda
        self._input = names[0]
        self._messages = messages
        self._memory: list[int] = []
        self._stream: Any = None
        # Not the default stream, on which TensorRT adds device-wide synchronisations.
        self._stream = _checked(cuda, cuda.cudaStreamCreateWithFlags(cuda.cudaStreamNonBlocking))
        for name, size in zip(names, sizes, strict=True):
            self._memory.append(_checked(cuda, cuda.cudaMalloc(size)))
            context.set_tensor_address(name, self._memory[-1])

    def run(self, images: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        """float32 logits of `shape`, in host memory."""
        cuda, kinds = self._cuda, self._cuda.cudaMemcpyKind
        logits = np.empty(shape, np.float32)
        if not self._context.set_input_shape(self._input, images.shape):
            raise BackendError(f"The engine rejects images of shape {images.shape}: {'; '.join(self._messages)}")
        sent = (self._memory[0], images.ctypes.data, images.nbytes, kinds.cudaMemcpyHostToDevice, self._stream)
        _checked(cuda, cuda.cudaMemcpyAsync(*sent))
        if not self._context.execute_async_v3(int(self._stream)):
            raise BackendError(f"The engine failed: {'; '.join(self._messages)}")
        back = (logits.ctypes.data, self._memory[1], logits.nbytes, kinds.cudaMemcpyDeviceToHost, self._stream)
        _checked(cuda, cuda.cudaMemcpyAsync(*back))
        _checked(cuda, cuda.cudaStreamSynchronize(self._stream))
        return logits

    def __del__(self) -> None:
        for pointer in self._memory:
            self._cuda.cudaFree(pointer)
        if self._stream is not None:
            self._cuda.cudaStreamDestroy(self._stream)


def load(model: ModelFile, *, precision: str, device: str, threads: int, concurrent_calls: int = 1) -> TensorRtBackend:
    """The engine on the first CUDA device. The file fixes the precision, and calls use no CPU threads but the caller's:
    `precision`, `threads` and `concurrent_calls` are ignored."""
    from cuda.bindings import runtime as cuda

    _checked(cuda, cuda.cudaGetDeviceCount(), BackendUnavailable, "there is no CUDA device")
    name = next(name for name in FLAVOURS if find_spec(name))
    library = import_module(name)
    version = f"{FLAVOURS[name]} {library.__version__}"
    messages: deque[str] = deque(maxlen=5)
    runtime = library.Runtime(_logger(library, messages.append))
    engine = runtime.deserialize_cuda_engine(model.content)
    if engine is None:
        major, minor = (
            _checked(cuda, cuda.cudaDeviceGetAttribute(getattr(cuda.cudaDeviceAttr, attribute), 0))
            for attribute in ("cudaDevAttrComputeCapabilityMajor", "cudaDevAttrComputeCapabilityMinor")
        )
        raise BackendError(
            f"{version} cannot load {model} on a GPU of compute capability {major}.{minor}: {' '.join(messages)} Build "
            f"it for this GPU and version: {command('export', '--to', 'tensorrt')}."
        )
    return TensorRtBackend(engine, cuda, version, messages)


def _checked(
    cuda: ModuleType,
    returned: tuple[Any, ...],
    error: type[BackendError] | type[BackendUnavailable] = BackendError,
    what: str = "a CUDA call failed",
) -> Any:
    """Return value of a cuda-bindings call without its status; raises `error` if the status is not success."""
    status, *values = returned
    if status != cuda.cudaError_t.cudaSuccess:
        reason = cuda.cudaGetErrorString(status)[1].decode()
        raise error(f"'tensorrt': {what} ({reason}). Check the driver with nvidia-smi, or use device='cpu'.")
    return values[0] if values else None


def _logger(library: Any, keep: Callable[[str], None]) -> Any:
    """A TensorRT logger that passes errors to `keep` and prints nothing."""

    class Kept(library.ILogger):
        def __init__(self) -> None:
            library.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if int(severity) <= int(library.ILogger.ERROR):
                keep(message)

    return Kept()
