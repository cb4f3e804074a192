"""`available_cpus`: the number of CPU cores available to this process, the default for engine threads."""

from __future__ import annotations

import os
from pathlib import Path

from stageproof.runtime.system.cgroups import cpu_quota, cpu_set, whole_cpus

_SYSTEM = Path("/")


def available_cpus(system: Path = _SYSTEM) -> int:
    """Number of physical cores that this process may use, at least 1: those in its affinity mask and cpusets, limited
    by its CPU quota.

    Hyper-threads of one core share the arithmetic units that convolutions saturate, so only one per core is counted.
    The quota is the smallest of the process's control group and its ancestors (`runtime.system.cgroups`), rounded up.
    system: root of the file system; tests replace it.
    """
    cpus = set(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    cpus = cpus & (cpu_set(system) or cpus) or cpus
    cores = {_siblings(system, cpu) for cpu in cpus}
    quota = cpu_quota(system)
    return max(1, len(cores) if quota is None else min(len(cores), whole_cpus(quota)))


def _siblings(system: Path, cpu: int) -> str:
    """The hyper-threads of this CPU's core, as listed by Linux; the CPU number itself if unknown."""
    path = system / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"
    try:
        return path.read_text(encoding="ascii").strip() or str(cpu)
    except (OSError, ValueError):
        return str(cpu)
