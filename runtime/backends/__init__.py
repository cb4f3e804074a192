"""The engines that can run an artifact, one module each behind one small protocol.

A backend module has

    NAME          what users call it
    FORMATS       the artifact formats it runs, as the manifest names them
    REQUIRES      {importable module, or several of which one is enough, as a|b: extra of stageproof that installs it}
    DEVICES       where it can run: among cpu, cuda and tensorrt, which is CUDA through TensorRT
    AT_ONCE       those of them on which an engine of it can answer several calls at once, with a thread or more each
    load(...)     model file and settings → Backend; the engine is imported here and nowhere earlier

`BACKENDS` is the one table; its order breaks ties between backends whose speed was not measured.
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
    """An artifact loaded into an engine. Safe to call from several threads."""

    engine: str
    """Name and version of the engine."""
    metadata: str | None
    """The JSON text that the artifact carries under `runtime.bundle.manifest.METADATA_KEY`, if any."""

    def run(self, images: np.ndarray) -> np.ndarray:
        """(N, classes) float32 logits of (N, C, H, W) float32 images; the caller has validated them."""
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
"""File suffix → format, for artifacts used without their bundle."""


def backend_module(name: str) -> ModuleType:
    """The backend module called `name`. Raises InputError listing the names there are."""
    if name not in BACKENDS:
        raise InputError(f"No backend is called {name!r}. Backends: {', '.join(BACKENDS)}.")
    return BACKENDS[name]


def missing(name: str) -> str | None:
    """Why the backend cannot be used here, with the command that mends it; None when it can. Imports no engine."""
    for modules, extra in BACKENDS[name].REQUIRES.items():
        if not any(_installed(module) for module in modules.split("|")):
            return f"needs the package {modules.replace('|', ' or ')}: pip install 'stageproof[{extra}]'"
    return None


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # a package that should hold it
        return False


def elsewhere(name: str, device: str) -> str | None:
    """Why the backend cannot run on `device`, which it never can; None when it can."""
    devices = BACKENDS[name].DEVICES
    if device in devices:
        return None
    return f"runs on device {' or '.join(map(repr, devices))}, and device={device!r} was asked for"


def available() -> list[str]:
    """Names of the backends whose engine is installed here."""
    return [name for name in BACKENDS if missing(name) is None]


def answers_several(name: str, device: str) -> bool:
    """Whether `load` takes `at_once` for it."""
    return device in BACKENDS[name].AT_ONCE


def load(
    name: str,
    model: Path | ModelFile,
    *,
    precision: str,
    device: str,
    threads: int,
    at_once: int = 1,
    trust_code: bool = False,
) -> Backend:
    """The model, loaded by the backend called `name`, from the bytes of `model` and from no path.

    precision: of the artifact, as its manifest says (``fp32``, …): an engine must not compute in less on its own.
    device: one of `DEVICES`.
    threads: CPU threads the engine may use.
    at_once: calls that share them, each of which has its part of them to itself; more than one for `answers_several`.
    trust_code: load formats that carry code too (`runtime.artifacts.verified_bytes.CODE`).

    Raises BackendUnavailable when the engine is not installed or has no such device, BackendError when it fails,
    ForkError where it ran before this process was forked and cannot start again, TrustError for code that is not
    trusted, and BundleError for a file that declares what no network here has (`runtime.artifacts.inspection`).
    """
    module = backend_module(name)
    if reason := missing(name):
        here = ", ".join(available()) or "none"
        raise BackendUnavailable(f"{name!r} {reason}. Available here: {here}.")
    if reason := elsewhere(name, device):
        others = ", ".join(other for other, module in BACKENDS.items() if device in module.DEVICES)
        raise BackendUnavailable(f"{name!r} {reason}. On {device!r} run: {others}.")
    library = next(iter(module.REQUIRES))
    forks.check_library(library)
    if isinstance(model, Path):
        model = ModelFile.read(model)
    assert_harmless(model, SUFFIXES.get(model.path.suffix, ""), trust_code=trust_code)
    several = {"at_once": at_once} if at_once > 1 else {}
    backend: Backend = module.load(model, precision=precision, device=device, threads=threads, **several)
    forks.loaded(backend, library)
    return backend
