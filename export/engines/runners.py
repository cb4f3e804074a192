"""What artifacts are checked and timed in: Predictor's backends, and what other programs use. Light to import."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import numpy as np

from stageproof.export.engines import aotinductor
from stageproof.runtime import backends
from stageproof.runtime.artifacts.entries import TENSOR
from stageproof.runtime.artifacts.inspection import untrusted_message
from stageproof.runtime.artifacts.verified_bytes import ModelFile
from stageproof.runtime.backends import BACKENDS, Backend
from stageproof.runtime.errors import BackendError, BackendUnavailable, BundleError, TrustError

LONG_S = 10
"""Seconds of work of which it is said beforehand how long it will take."""


def asked() -> dict[str, ModuleType]:
    """Name → module of all of them."""
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

    takes: as `runtime.artifacts.entries.Artifact.takes`.
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
        raise TrustError(untrusted_message(path, module.NAME))
    backend: Backend = module.load(path, precision=precision, device=device, threads=threads)
    return backend


def load_in_each(
    path: Path, format_name: str, precision: str, threads: int, skipped: list[str], *, takes: str = TENSOR
) -> Iterator[tuple[str, Backend]]:
    """Name and backend, one after the other, of all here that run the file, which this export built; `skipped` gains
    why any other does not. takes: as `load` has it."""
    for name, module in asked().items():
        if format_name not in module.FORMATS:
            continue
        if reason := missing(name):
            skipped.append(f"{path.name} was not checked in {name!r}, which {reason}")
            continue
        try:
            yield name, load(name, path, precision, threads, takes=takes, trust_code=True)
        except (BackendUnavailable, BackendError, BundleError) as error:
            skipped.append(f"{path.name} does not load in {name!r}: {one_line(error, path)}")


def run_in_batches(
    backend: Backend,
    images: np.ndarray,
    first: int = 1,
    batch_size: int = 8,
    say: Callable[[str], None] = lambda text: None,
) -> np.ndarray:
    """(N, classes) float32 logits: `first` images, then full batches of `batch_size`.

    say: takes how long the rest will take, once, where that is long.
    """
    cuts = [0, *range(first, len(images), batch_size), len(images)]
    parts = []
    for number, (a, b) in enumerate(pairwise(cuts)):
        start = time.perf_counter()
        parts.append(backend.run(images[a:b]))
        if number == 1:  # the first batch also prepares the engine
            rest = (time.perf_counter() - start) / (b - a) * (len(images) - b)
            if rest > LONG_S:
                say(f"comparing {len(images)} images, about {rest:.0f} s to go")
    return np.concatenate(parts)


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
