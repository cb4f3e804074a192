"""TensorRT engines: what a machine without a GPU says of them, and the arithmetic around the engine."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from stageproof.runtime import BackendError, BackendUnavailable, Predictor, TrustError, backends
from stageproof.runtime.backends import tensorrt

needs_library = pytest.mark.skipif(backends.missing("tensorrt") is not None, reason=f"{backends.missing('tensorrt')}")


def has_gpu() -> bool:
    if backends.missing("tensorrt"):
        return False
    from cuda.bindings import runtime as cuda

    status, count = cuda.cudaGetDeviceCount()
    return status == cuda.cudaError_t.cudaSuccess and count > 0


GPU = has_gpu()


@needs_library
@pytest.mark.skipif(GPU, reason="this machine has a CUDA device")
@pytest.mark.parametrize("device", ["cuda", "tensorrt"])
def test_without_a_device_it_says_so(tmp_path: Path, device: str) -> None:
    """The real library and the real CUDA runtime, on this machine."""
    engine = tmp_path / "model.engine"
    engine.write_bytes(b"ftrt" + bytes(2000))
    with pytest.raises(BackendUnavailable, match=r"there is no CUDA device \(.+\)\. Check the driver"):
        backends.load("tensorrt", engine, precision="fp16", device=device, threads=1, trust_code=True)


@needs_library
def test_on_the_cpu_it_is_never_tried(tmp_path: Path) -> None:
    engine = tmp_path / "model.engine"
    engine.write_bytes(b"ftrt")
    with pytest.raises(
        BackendUnavailable, match=r"No backend here runs \.engine files: 'tensorrt' runs on device 'cuda'"
    ):
        Predictor(engine)
    with pytest.raises(TrustError, match="contains code"):
        Predictor(engine, backend="tensorrt")


def test_a_missing_library_names_every_flavour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "find_spec", lambda name: None)
    assert backends.missing("tensorrt") == (
        "needs the package tensorrt or tensorrt_rtx or tensorrt_rtx_bindings: pip install 'stageproof[tensorrt]'"
    )


@needs_library
def test_the_real_bindings_have_what_the_backend_calls() -> None:
    """A renamed or dropped function would show only on a GPU otherwise."""
    from importlib import import_module
    from importlib.util import find_spec

    from cuda.bindings import runtime as cuda

    library = import_module(next(name for name in tensorrt.FLAVOURS if find_spec(name)))
    for holder, names in {
        library.ICudaEngine: "create_execution_context get_tensor_mode get_tensor_name get_tensor_profile_shape",
        library.IExecutionContext: "execute_async_v3 set_input_shape set_tensor_address",
        library.Runtime: "deserialize_cuda_engine",
        cuda: "cudaFree cudaGetDeviceCount cudaMalloc cudaMemcpyAsync cudaStreamCreateWithFlags cudaStreamDestroy "
        "cudaStreamNonBlocking cudaStreamSynchronize cudaDeviceGetAttribute",
    }.items():
        assert [name for name in names.split() if not hasattr(holder, name)] == []
    messages: deque[str] = deque(maxlen=5)
    assert library.Runtime(tensorrt._logger(library, messages.append)).deserialize_cuda_engine(b"x" * 1000) is None
    assert "Serialization" in " ".join(messages)
    with pytest.raises(BackendError, match=r"a CUDA call failed \(.*insufficient"):
        tensorrt._checked(cuda, (cuda.cudaError_t.cudaErrorInsufficientDriver,))


class Card:
    """Stands for a GPU that no test machine has: memory is a dict, and the engine sums the pixels of each image."""

    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)  # noqa: N815
    cudaError_t = SimpleNamespace(cudaSuccess=0)  # noqa: N815
    cudaStreamNonBlocking = 1  # noqa: N815

    def __init__(self) -> None:
        self.memory: dict[int, np.ndarray] = {}
        self.batches: list[int] = []
        self.lanes = 0

    def cudaStreamCreateWithFlags(self, flags):  # noqa: N802
        self.lanes += 1
        return 0, self.lanes

    def cudaMalloc(self, size):  # noqa: N802
        self.memory[len(self.memory) + 1] = np.zeros(size // 4, np.float32)
        return 0, len(self.memory)

    def cudaMemcpyAsync(self, to, source, size, kind, stream):  # noqa: N802
        import ctypes

        host = to if kind == 2 else source
        values = np.ctypeslib.as_array((ctypes.c_float * (size // 4)).from_address(host))
        if kind == 1:
            self.memory[to][: size // 4] = values
        else:
            values[:] = self.memory[source][: size // 4]
        return (0,)

    def cudaStreamSynchronize(self, stream):  # noqa: N802
        return (0,)

    def cudaFree(self, pointer):  # noqa: N802
        return (0,)

    cudaStreamDestroy = cudaFree  # noqa: N815


class Engine:
    """An engine for batches of 2 to 4 images of 1 × 2 × 2 in three classes: sum, twice and thrice the sum."""

    num_io_tensors = 2

    def __init__(self, card: Card) -> None:
        self.card = card

    def get_tensor_name(self, index):
        return ("images", "logits")[index]

    def get_tensor_mode(self, name):
        return "TensorIOMode." + {"images": "INPUT", "logits": "OUTPUT"}[name]

    def get_tensor_profile_shape(self, name, profile):
        return (2, 1, 2, 2), (2, 1, 2, 2), (4, 1, 2, 2)

    def get_tensor_shape(self, name):
        return (-1, 3)

    def create_execution_context(self):
        return Context(self.card)


class Context:
    def __init__(self, card: Card) -> None:
        self.card, self.addresses, self.count = card, {}, 0

    def set_tensor_address(self, name, pointer):
        self.addresses[name] = pointer

    def set_input_shape(self, name, shape):
        self.count = shape[0]
        return 2 <= shape[0] <= 4

    def execute_async_v3(self, stream):
        images = self.card.memory[self.addresses["images"]][: self.count * 4].reshape(self.count, 4)
        self.card.batches.append(self.count)
        self.card.memory[self.addresses["logits"]][: self.count * 3] = np.outer(images.sum(1), [1, 2, 3]).ravel()
        return True


@pytest.mark.parametrize("count", [1, 2, 4, 5, 9, 33])
def test_any_number_of_images_fits_the_engines_batches(count: int) -> None:
    card = Card()
    backend = tensorrt.TensorRtBackend(Engine(card), card, "fake 1", deque())
    images = np.random.default_rng(count).random((count, 1, 2, 2), np.float32)
    assert np.allclose(backend.run(images), np.outer(images.sum((1, 2, 3)), [1, 2, 3]), rtol=1e-6)
    assert min(card.batches) >= 2
    assert max(card.batches) <= 4
    backend.run(images)
    assert card.lanes == 1  # context, stream and memory are used again


def test_each_thread_has_a_lane_of_its_own() -> None:
    from concurrent.futures import ThreadPoolExecutor

    card = Card()
    backend = tensorrt.TensorRtBackend(Engine(card), card, "fake 1", deque())
    images = np.random.default_rng(0).random((200, 3, 1, 2, 2), np.float32)
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(backend.run, images))
    assert np.allclose(results, images.sum((2, 3, 4))[..., None] * [1, 2, 3], rtol=1e-6)
    assert card.lanes <= 8


@pytest.mark.gpu
@pytest.mark.skipif(not GPU, reason="needs TensorRT and a CUDA device")
def test_an_engine_decides_as_the_onnx_file_it_was_built_from(trained_run: Path, phantoms, tmp_path) -> None:
    """Builds for the GPU at hand, and runs there."""
    from stageproof.export.__main__ import main as export
    from stageproof.runtime import preprocess, read_image

    assert export([str(trained_run), "--to", "onnx", "tensorrt", "--out", str(tmp_path / "engine")]) == 0
    path = tmp_path / "engine" / "model.engine"
    engine = backends.load("tensorrt", path, precision="fp32", device="cuda", threads=1, trust_code=True)
    reference = Predictor(tmp_path / "engine", backend="onnx")
    rows = np.stack([preprocess(read_image(image), reference.model.input) for image in phantoms.images])
    for batch in (1, 7, 64):
        got = np.concatenate([engine.run(rows[first : first + batch]) for first in range(0, len(rows), batch)])
        assert np.abs(got - reference.logits(rows)).max() < 1e-2
