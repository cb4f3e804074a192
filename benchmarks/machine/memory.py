"""Resident memory of this process, peak and current. Has few imports, since every worker imports it."""

from __future__ import annotations

import platform
from pathlib import Path


def peak_rss() -> int:
    """Peak resident memory of this process, in bytes."""
    # Not getrusage: on Linux its value includes the parent's, since it is kept across exec.
    return _status("VmHWM")


def current_rss() -> int:
    """Current resident memory of this process, in bytes; the peak unless on Linux."""
    return _status("VmRSS")


def _status(key: str) -> int:
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8", errors="replace").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))
    except (OSError, StopIteration):
        import resource

        unit = 1 if platform.system() == "Darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
