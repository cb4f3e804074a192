"""What this process holds. Light, because every worker imports it."""

from __future__ import annotations

import platform
from pathlib import Path


def peak_rss() -> int:
    """Most memory that this process has held so far, bytes."""
    # getrusage would count what the process that started this one held: on Linux the figure survives exec.
    return _status("VmHWM")


def held_rss() -> int:
    """Memory that this process holds now, bytes; off Linux the most that it has held."""
    return _status("VmRSS")


def _status(key: str) -> int:
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8", errors="replace").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))
    except (OSError, StopIteration):
        import resource

        unit = 1 if platform.system() == "Darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
