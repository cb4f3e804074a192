"""The backends in which artifacts are checked and timed: Predictor's, and AOTInductor. Imports no engine."""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Iterator
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
from stageproof.train.terminal.bars import bar

logger = logging.getLogger(__name__)

LONG_S = 10
"""Remaining time in seconds from which it is logged."""


def check_backends() -> dict[str, ModuleType]:
    """Name → module of every backend in which artifacts are checked."""
    return {**BACKENDS, aotinductor.NAME: aotinductor}


def missing(name: str) -> str | None:
    """Why artifacts cannot be checked in backend `name` here; None if they can."""
    if name in BACKENDS:
        return backends.missing(name)
    return None if name in check_backends() else "is not known to this version"


def load(
    name: str, path: Path, precision: str, threads: int, *, takes: str = TENSOR, trust_code: bool = False
) -> Backend:
    """The artifact at `path`, loaded in backend `name`: on the CPU if it can run there, for comparable latencies, else
    on the GPU.

    takes: as `runtime.artifacts.entries.Artifact.takes`.
    trust_code: load formats that contain code: the file was built by this export, or the user trusts its source.

    Raises BackendUnavailable, BackendError or BundleError (including TrustError).
    """
    if reason := missing(name):
        raise BackendUnavailable(f"{name!r} {reason}.")
    module = BACKENDS[name] if name in BACKENDS else check_backends()[name]
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
    """Yields (name, backend) for each available backend that loads the file, which this export must have built.

    skipped: gains one sentence for each backend that does not. takes: as in `load`.
    """
    for name, module in check_backends().items():
        if format_name not in module.FORMATS:
            continue
        if reason := missing(name):
            skipped.append(f"{path.name} was not checked in {name!r}: it {reason}")
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
    what: str = "comparing",
) -> np.ndarray:
    """(N, classes) float32 logits, computed in a batch of `first` images, then in batches of `batch_size`.

    what: description of the progress bar; the remaining time is logged once if it is long.
    """
    cuts = [0, *range(first, len(images), batch_size), len(images)]
    parts = []
    with bar(what, len(images)) as advance:
        for number, (a, b) in enumerate(pairwise(cuts)):
            start = time.perf_counter()
            parts.append(backend.run(images[a:b]))
            if number == 1:  # the first batch also prepares the engine
                rest = (time.perf_counter() - start) / (b - a) * (len(images) - b)
                if rest > LONG_S:
                    logger.info(f"{what}: comparing {len(images)} images, about {rest:.0f} s left")
            advance(b - a)
    return np.concatenate(parts)


def one_line(error: Exception, path: Path | None = None) -> str:
    """An engine's error message in one line, with `path` replaced by its file name. The middle of a long message is
    left out: it usually lists the engine's source files."""
    text = " ".join(str(error).split())
    text = text.replace(str(path), path.name) if path else text
    return text if len(text) <= 600 else f"{text[:150]} … {text[-450:]}"


def machine(threads: int) -> str:
    """The machine on which a latency was measured, as recorded in a `Check`."""
    return f"{cpu()}, {threads} threads"


def cpu() -> str:
    """The CPU's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
