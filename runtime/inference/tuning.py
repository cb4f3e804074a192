"""Tuning: ranks the candidates by their latency measured on this machine, with an optional cache file."""

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
"""Timed runs of a single image per candidate, after three warm-up runs; the median is used."""


def rank_candidates(
    manifest: Manifest,
    considered: list[Candidate],
    load: Callable[[Candidate], Backend],
    settings: str,
    cache: Path | None,
) -> list[Candidate]:
    """The candidates sorted by latency for one image on this machine. Those that fail here follow in their original
    order, then those that contain code; candidates that are not trusted are not loaded and come last.

    load: loads a candidate; may raise BackendUnavailable or BackendError.
    settings: device and threads, as part of the cache key.
    cache: a JSON file of latencies by bundle, machine and settings; cached ones are not measured again. None: no cache.
        If the file cannot be read or written, the latencies are measured each time.
    """
    key = _key(manifest, settings)
    known = _read(cache).get(key) if cache else None
    times = known if isinstance(known, dict) else {}
    asked = [candidate for candidate in considered if not candidate.untrusted_code]
    if not all(_name(candidate) in times for candidate in asked):
        times = {_name(candidate): _measure(manifest, candidate, load) for candidate in asked}
        if cache:
            _write(cache, key, times)

    def rank(candidate: Candidate) -> tuple[bool, bool, float]:
        value = times.get(_name(candidate))
        known = float(value) if is_number(value) else float("inf")
        return candidate.untrusted_code, candidate.artifact.format in CODE, known

    return sorted(considered, key=rank)


def _measure(manifest: Manifest, candidate: Candidate, load: Callable[[Candidate], Backend]) -> float | None:
    """Median latency of one image in milliseconds; None if the candidate fails here."""
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
    """Cache key: SHA-256 of everything that the latencies depend on (bundle, processor, settings)."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    # platform.processor() and platform.platform() would start a subprocess.
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
    """Add one entry and replace the file atomically."""
    content = json.dumps({**_read(cache), key: times}, indent=2)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{cache.name}-", dir=cache.parent)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(content)
        Path(name).replace(cache)
    except OSError:
        return
