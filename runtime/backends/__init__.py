"""Backends: one module per inference engine, with a common protocol, and `load`, which loads an artifact into one.

A backend module has

    NAME          name for users
    FORMATS       artifact formats that it runs, as in the manifest
    REQUIRES      {importable module, or alternatives as a|b: extra of stageproof that installs it}
    DEVICES       supported devices: cpu, cuda, and tensorrt, which is CUDA through TensorRT
    load(...)     model file and settings → Backend; imports the engine

`BACKENDS` lists them; its order breaks ties between backends of equal latency.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Protocol

import numpy as np

from stageproof.runtime.artifacts.inspection import assert_harmless
from stageproof.runtime.artifacts.verified_bytes import ModelFile
from stageproof.runtime.backends import onnx, openvino, pytorch, tensorrt, torch_export, torchscript
from stageproof.runtime.errors import BackendUnavailable, InputError
from stageproof.runtime.system import forks


class Backend(Protocol):
    """An artifact loaded into an engine. Thread-safe."""

    engine: str
    """Name and version of the engine."""
    metadata: str | None
    """The artifact's metadata (JSON), stored under `runtime.artifacts.metadata.METADATA_KEY`, or None."""

    def run(self, images: np.ndarray) -> np.ndarray:
        """(N, classes) float32 logits of validated (N, C, H, W) float32 images."""
        ...


BACKENDS: dict[str, ModuleType] = {
    module.NAME: module for module in (tensorrt, openvino, onnx, torchscript, torch_export, pytorch)
}

DEVICES = ("cpu", "cuda", "tensorrt")

SUFFIXES: dict[str, str] = {
    ".onnx": "onnx",
    ".xml": "openvino",
    ".ts": "torchscript",
    ".pt2": "torch-export",
    ".safetensors": "pytorch",
    ".engine": "tensorrt",
}
"""File suffix → format, for artifacts that are used without their bundle."""


def backend_module(name: str) -> ModuleType:
    """The backend module called `name`. Raises InputError listing the known names."""
    if name not in BACKENDS:
        raise InputError(f"There is no backend {name!r}. Backends: {', '.join(BACKENDS)}.")
    return BACKENDS[name]


def missing(name: str) -> str | None:
    """Why the backend cannot be used, with the command that installs it; None if it can. Imports no engine."""
    for modules, extra in BACKENDS[name].REQUIRES.items():
        if not any(_installed(module) for module in modules.split("|")):
            return f"needs the package {modules.replace('|', ' or ')}: pip install 'stageproof[{extra}]'"
    return None


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # its parent package is missing
        return False


def unsupported_device(name: str, device: str) -> str | None:
    """Why the backend does not support `device`; None if it does."""
    devices = BACKENDS[name].DEVICES
    if device in devices:
        return None
    return f"runs on device {' or '.join(map(repr, devices))}, but device={device!r} was requested"


def available() -> list[str]:
    """Names of the backends whose engine is installed here."""
    return [name for name in BACKENDS if missing(name) is None]


def load(
    name: str,
    model: Path | ModelFile,
    *,
    precision: str,
    device: str,
    threads: int,
    concurrent_calls: int = 1,
    trust_code: bool = False,
) -> Backend:
    """The model, loaded by the backend called `name` from the bytes of `model`, never from a path.

    precision: the artifact's precision in the manifest (``fp32``, …); the engine must not compute in a lower one.
    device: one of `DEVICES`.
    threads: CPU threads of the engine.
    concurrent_calls: number of calls of `run` that the engine is set up for, among which the threads are divided. With
        1, a call has the lowest latency. `run` can be called from any number of threads in both cases.
    trust_code: also load formats that contain code (`runtime.artifacts.verified_bytes.CODE`).

    Raises BackendUnavailable if the engine is not installed or lacks the device, BackendError if it fails, ForkError if
    it ran before this process was forked and cannot restart, TrustError for untrusted code, and BundleError for a file
    with content that no export writes (`runtime.artifacts.inspection`).
    """
    module = backend_module(name)
    if reason := missing(name):
        here = ", ".join(available()) or "none"
        raise BackendUnavailable(f"{name!r} {reason}. Available here: {here}.")
    if reason := unsupported_device(name, device):
        others = ", ".join(other for other, module in BACKENDS.items() if device in module.DEVICES)
        raise BackendUnavailable(f"{name!r} {reason}. Backends for {device!r}: {others}.")
    library = next(iter(module.REQUIRES))
    forks.check_library(library)
    if isinstance(model, Path):
        model = ModelFile.read(model)
    assert_harmless(model, SUFFIXES.get(model.path.suffix, ""), trust_code=trust_code)
    backend: Backend = module.load(
        model, precision=precision, device=device, threads=threads, concurrent_calls=concurrent_calls
    )
    forks.loaded(backend, library)
    return backend
