"""How many threads an engine may take: what this process was given, not what the machine has."""

from __future__ import annotations

import os
from pathlib import Path

from stageproof.runtime.system.cgroups import cpu_quota, cpu_set, whole_cpus

_SYSTEM = Path("/")


def available_cpus(system: Path = _SYSTEM) -> int:
    """Cores this process may use, at least 1: its affinity mask and cpusets, one for each physical core, cut to its
    CPU quota.

    Two threads of one core share the arithmetic units that convolutions keep busy, so a second one only adds waiting.
    The quota is the smallest of its control group and all groups above it (`runtime.system.cgroups`), rounded up.
    system: root of the file system, which tests replace.
    """
    cpus = set(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    cpus = cpus & (cpu_set(system) or cpus) or cpus
    cores = {_siblings(system, cpu) for cpu in cpus}
    quota = cpu_quota(system)
    return max(1, len(cores) if quota is None else min(len(cores), whole_cpus(quota)))


def _siblings(system: Path, cpu: int) -> str:
    """What is equal for the threads of one core, as Linux lists them; the CPU itself where that is not known."""
    path = system / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"
    try:
        return path.read_text(encoding="ascii").strip() or str(cpu)
    except (OSError, ValueError):
        return str(cpu)
