"""Describes the machine of a measurement: hardware, versions, timing noise, and CPU use by other processes."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from stageproof.export.engines.runners import cpu
from stageproof.runtime.system.cpus import available_cpus

NOISY = 0.10
"""Threshold of the timing noise, and of the share of CPUs used by other processes, for a busy machine."""

_PACKAGES = (
    "stageproof",
    "numpy",
    "pillow",
    "torch",
    "torchvision",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "nncf",
)


def circumstances() -> dict[str, Any]:
    """Hardware, clock rate, load, noise and versions, for the record. Takes about a second; run nothing else meanwhile.

    mhz: median clock rate of the CPUs after the noise measurement, if available. load_average: over one minute.
    noise: from `noise`. others: from `used_by_others`. busy: whether either is above `NOISY`.
    """
    others, spread = used_by_others(), noise()
    return {
        "cpu": cpu(),
        "cpus": available_cpus(),
        "mhz": _mhz(),
        "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "memory_bytes": _memory(),
        "noise": round(spread, 4),
        "others": None if others is None else round(others, 4),
        "busy": spread > NOISY or (others or 0.0) > NOISY,
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: found for name in _PACKAGES if (found := _version(name))},
    }


def noise(runs: int = 40) -> float:
    """Timing noise: (90th - 10th percentile) / median of `runs` runs of a fixed calculation of some milliseconds."""
    # Elementwise, because a matrix product would use a library's threads; within the L1 cache and without new memory,
    # whose allocation time varies.
    values = np.random.default_rng(0).random(2048, np.float32)
    result = np.empty_like(values)
    times = []
    for _ in range(runs + 5):
        begun = time.perf_counter()
        for _ in range(2500):
            np.sqrt(np.multiply(values, values, out=result), out=result)
        times.append(time.perf_counter() - begun)
    low, middle, high = np.quantile(times[5:], (0.1, 0.5, 0.9))
    return float((high - low) / middle)


def used_by_others(seconds: float = 0.5) -> float | None:
    """Share of all CPUs, in [0, 1], that other processes or virtual machines use while this one sleeps; None unless on
    Linux."""
    before = _ticks()
    if before is None:
        return None
    time.sleep(seconds)
    after = _ticks()
    assert after is not None, "/proc/stat was readable before"
    spent, idle = (now - then for now, then in zip(after, before, strict=True))
    return max(0.0, 1.0 - idle / spent) if spent else 0.0


def commit() -> str | None:
    """Git commit of this code, with a final `+` if files were modified; None outside a checkout."""
    folder = Path(__file__).resolve().parents[2]
    try:
        found, changed = (
            subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True, timeout=20).stdout
            for words in (("rev-parse", "--short=12", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.strip() + ("+" if changed.strip() else "")


def _ticks() -> tuple[int, int] | None:
    """(total, idle) clock ticks of all CPUs since boot; None if unavailable."""
    try:
        fields = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:9]
    except (OSError, IndexError):
        return None
    ticks = [int(field) for field in fields]  # user nice system idle iowait irq softirq steal
    return sum(ticks), ticks[3] + ticks[4]


def _mhz() -> float | None:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return statistics.median(float(line.partition(":")[2]) for line in lines if line.startswith("cpu MHz"))
    except (OSError, ValueError):
        return None


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
