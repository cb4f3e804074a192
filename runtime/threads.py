"""How many threads an engine may take: what this process was given, not what the machine has."""

from __future__ import annotations

import os
from pathlib import Path

_SYSTEM = Path("/")


def available_cpus(system: Path = _SYSTEM) -> int:
    """Cores this process may use, at least 1: its affinity mask, one for each physical core, cut to its CPU quota.

    Two threads of one core share the arithmetic units that convolutions keep busy, so a second one only adds waiting.
    The quota is that of the container (cgroup v2 or v1), rounded up.
    system: root of the file system, which tests replace.
    """
    cpus = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    cores = {_siblings(system, cpu) for cpu in cpus}
    return max(1, min(len(cores), _quota(system) or len(cores)))


def _siblings(system: Path, cpu: int) -> str:
    """What is equal for the threads of one core, as Linux lists them; the CPU itself where that is not known."""
    path = system / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"
    try:
        return path.read_text(encoding="ascii").strip() or str(cpu)
    except (OSError, ValueError):
        return str(cpu)


def _quota(system: Path) -> int | None:
    """CPUs that the control group of this process may keep busy; None without a limit."""
    group = system / "sys/fs/cgroup"
    try:
        quota, period = (group / "cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        try:
            quota, period = (
                (group / "cpu" / f"cpu.cfs_{name}_us").read_text(encoding="ascii").strip()
                for name in ("quota", "period")
            )
        except (OSError, ValueError):
            return None
    if not quota.isdigit() or not period.isdigit() or period == "0":  # "max" in v2, -1 in v1
        return None
    return max(1, -(-int(quota) // int(period)))
