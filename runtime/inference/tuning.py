"""Tuning: ranks the candidates by their time measured on this machine, with an optional cache file."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from stageproof.runtime.artifacts.verified_bytes import CODE
from stageproof.runtime.backends import Backend
from stageproof.runtime.bundle.manifest import Manifest
from stageproof.runtime.errors import BackendError, BackendUnavailable
from stageproof.runtime.inference.engine_settings import EngineSettings
from stageproof.runtime.inference.selection import Candidate
from stageproof.runtime.serialization.json_fields import is_number

RUNS = 15
"""Timed runs per candidate, after three warm-up runs; the median is used."""


def rank_candidates(
    manifest: Manifest,
    considered: list[Candidate],
    load: Callable[[Candidate], Backend],
    settings: EngineSettings,
    cache: Path | None,
) -> list[Candidate]:
    """The candidates sorted by their time on this machine: for latency, that of one image; for throughput, the time per
    image of full batches in as many concurrent calls as the engine is loaded for. Those that fail here follow in their
    original order, then those that contain code; candidates that are not trusted are not loaded and come last.

    load: loads a candidate; may raise BackendUnavailable or BackendError.
    settings: mode, device and threads; part of the cache key.
    cache: a JSON file of times by bundle, machine and settings; cached ones are not measured again. None: no cache.
        If the file cannot be read or written, the times are measured each time.
    """
    key = _key(manifest, settings)
    known = _read(cache).get(key) if cache else None
    times = known if isinstance(known, dict) else {}
    asked = [candidate for candidate in considered if not candidate.untrusted_code]
    if not all(_name(candidate) in times for candidate in asked):
        times = {_name(candidate): _measure(manifest, candidate, load, settings) for candidate in asked}
        if cache:
            _write(cache, key, times)

    def rank(candidate: Candidate) -> tuple[bool, bool, float]:
        value = times.get(_name(candidate))
        known = float(value) if is_number(value) else float("inf")
        return candidate.untrusted_code, candidate.artifact.format in CODE, known

    return sorted(considered, key=rank)


def _measure(
    manifest: Manifest, candidate: Candidate, load: Callable[[Candidate], Backend], settings: EngineSettings
) -> float | None:
    """Median time per image in milliseconds, as for `rank_candidates`; None if the candidate fails here."""
    shape, calls = manifest.model.input.shape, settings.concurrent_calls
    count = settings.batch_size(shape) if settings.optimize_for == "throughput" else 1
    # Noise with the mean and spread of normalised pixels: arithmetic on zeros can be faster than on images.
    images = np.random.default_rng(0).standard_normal((count, *shape), np.float32)
    times = []
    try:
        backend = load(candidate)
        with ThreadPoolExecutor(calls, thread_name_prefix="stageproof-tuning") as pool:
            for _ in range(RUNS + 3):
                begun = time.perf_counter()
                if calls == 1:
                    backend.run(images)
                else:
                    list(pool.map(backend.run, [images] * calls))
                times.append(time.perf_counter() - begun)
    except (BackendUnavailable, BackendError, RuntimeError):
        return None
    return statistics.median(times[3:]) * 1e3 / (calls * count)


def _name(candidate: Candidate) -> str:
    return f"{candidate.artifact.file} in {candidate.check.backend}"


def _key(manifest: Manifest, settings: EngineSettings) -> str:
    """Cache key: SHA-256 of everything that the times depend on (bundle, processor, settings)."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    # platform.processor() and platform.platform() would start a subprocess.
    processor = next((line for line in lines if line.startswith("model name")), platform.machine())
    system = (platform.system(), platform.release(), platform.machine())
    mode = "" if settings.optimize_for == "latency" else f", for {settings.optimize_for}"
    described = f"{settings.device}, {settings.threads} threads{mode}"
    parts = [manifest.to_json(), described, *system, processor, str(os.cpu_count())]
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
