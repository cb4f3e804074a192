"""Which artifact is fastest on this very machine: measured here, and remembered where the caller says."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from stageproof.runtime.artifacts.verified_bytes import CODE
from stageproof.runtime.backends import Backend
from stageproof.runtime.bundle.manifest import Manifest
from stageproof.runtime.errors import BackendError, BackendUnavailable
from stageproof.runtime.inference.selection import Candidate
from stageproof.runtime.serialization.json_fields import is_number

RUNS = 15
"""Single images timed for each candidate, after three to warm up; the median counts."""


def ranked(
    manifest: Manifest,
    considered: list[Candidate],
    load: Callable[[Candidate], Backend],
    settings: str,
    cache: Path | None,
) -> list[Candidate]:
    """The candidates by the time one image takes here; those that do not run here follow in their old order, then those
    that carry code, and those held back, which are not loaded, are last.

    load: loads one; it may raise BackendUnavailable or BackendError.
    settings: what else the times depend on: device and threads.
    cache: a JSON file of times by bundle, machine and settings. What stands there is not measured again; None measures.
        A file that cannot be read or written costs the measurement, and nothing else.
    """
    key = _key(manifest, settings)
    known = _read(cache).get(key) if cache else None
    times = known if isinstance(known, dict) else {}
    asked = [candidate for candidate in considered if not candidate.held_back]
    if not all(_name(candidate) in times for candidate in asked):
        times = {_name(candidate): _measure(manifest, candidate, load) for candidate in asked}
        if cache:
            _write(cache, key, times)

    def rank(candidate: Candidate) -> tuple[bool, bool, float]:
        value = times.get(_name(candidate))
        known = float(value) if is_number(value) else float("inf")
        return candidate.held_back, candidate.artifact.format in CODE, known

    return sorted(considered, key=rank)


def _measure(manifest: Manifest, candidate: Candidate, load: Callable[[Candidate], Backend]) -> float | None:
    """Median milliseconds of one image; None where the candidate does not run here."""
    image = np.zeros((1, *manifest.model.input.shape), np.float32)
    times = []
    try:
        backend = load(candidate)
        for _ in range(RUNS + 3):
            begun = time.perf_counter()
            backend.run(image)
            times.append(time.perf_counter() - begun)
    except (BackendUnavailable, BackendError, RuntimeError):
        return None
    return statistics.median(times[3:]) * 1e3


def _name(candidate: Candidate) -> str:
    return f"{candidate.artifact.file} in {candidate.check.backend}"


def _key(manifest: Manifest, settings: str) -> str:
    """SHA-256 of everything the times depend on: another bundle, processor or setting is measured anew."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    # Not platform.processor() nor platform.platform(), which start a process.
    processor = next((line for line in lines if line.startswith("model name")), platform.machine())
    system = (platform.system(), platform.release(), platform.machine())
    parts = [manifest.to_json(), settings, *system, processor, str(os.cpu_count())]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _read(cache: Path) -> dict[str, object]:
    try:
        data = json.loads(cache.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def _write(cache: Path, key: str, times: dict[str, float | None]) -> None:
    """Add one entry in one step, so that no reader sees half a file."""
    content = json.dumps({**_read(cache), key: times}, indent=2)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{cache.name}-", dir=cache.parent)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(content)
        Path(name).replace(cache)
    except OSError:
        return
