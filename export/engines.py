"""What artifacts are checked and timed in: Predictor's backends, and what other programs use. Light to import."""

from __future__ import annotations

import platform
from pathlib import Path
from types import ModuleType

from runtime import backends
from runtime.backends import BACKENDS, Backend
from runtime.entries import TENSOR
from runtime.errors import BackendUnavailable, TrustError
from runtime.examined import untrusted
from runtime.model_file import ModelFile


def asked() -> dict[str, ModuleType]:
    """Name → module of all of them."""
    from export.formats import aotinductor  # which imports torch

    return {**BACKENDS, aotinductor.NAME: aotinductor}


def missing(name: str) -> str | None:
    """Why artifacts cannot be checked in it here; None when they can."""
    if name in BACKENDS:
        return backends.missing(name)
    return None if name in asked() else "is not known to this version"


def load(
    name: str, path: Path, precision: str, threads: int, *, takes: str = TENSOR, trust_code: bool = False
) -> Backend:
    """The artifact at `path` in one of `asked`, on the CPU where it can run there, so that figures compare, else on the
    GPU.

    takes: as `runtime.entries.Artifact.takes`.
    trust_code: the file was built by this export, or the user trusts whoever did: formats that carry code are loaded.

    Raises BackendUnavailable, BackendError or BundleError, TrustError among these.
    """
    if reason := missing(name):
        raise BackendUnavailable(f"{name!r} {reason}.")
    module = BACKENDS[name] if name in BACKENDS else asked()[name]
    device = "cpu" if "cpu" in module.DEVICES else module.DEVICES[0]
    if name in BACKENDS:
        model = ModelFile.read(path, takes)
        return backends.load(name, model, precision=precision, device=device, threads=threads, trust_code=trust_code)
    if not trust_code:
        raise TrustError(untrusted(path, module.NAME))
    backend: Backend = module.load(path, precision=precision, device=device, threads=threads)
    return backend


def one_line(error: Exception, path: Path | None = None) -> str:
    """What an engine says, as one line, `path` by its name only; of a long text the middle, the engine's own source
    files, is left out."""
    text = " ".join(str(error).split())
    text = text.replace(str(path), path.name) if path else text
    return text if len(text) <= 600 else f"{text[:150]} … {text[-450:]}"


def machine(threads: int) -> str:
    """Where a latency was measured, as a `Check` states it."""
    return f"{cpu()}, {threads} threads"


def cpu() -> str:
    """The CPU's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
