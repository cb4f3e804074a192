"""CPU limits of this process by Linux control groups, version 1 and 2: quota and CPU sets.

The limit of every ancestor group applies too, so all mounted levels are read and the smallest limit is returned:
systemd sets CPUQuota= in a slice above the service, a container runtime in the group that is mounted as the root.
No function raises: a missing, unreadable or malformed file means no limit.
Sources: cgroups(7), proc_pid_mountinfo(5), and the kernel's admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_CONVENTIONAL = {
    "": ("sys/fs/cgroup", "sys/fs/cgroup/unified"),
    "cpu": ("sys/fs/cgroup/cpu", "sys/fs/cgroup/cpu,cpuacct"),
    "cpuset": ("sys/fs/cgroup/cpuset",),
}
"""Controller (empty for version 2) → usual mount points, used if /proc does not list them."""


def cpu_quota(system: Path) -> float | None:
    """CPU quota of this process in CPUs, such as 1.5; None without a limit.

    system: root of the file system.
    """
    limits = [
        *(_quota_v2(folder) for folder in _groups(system, "")),
        *(_quota_v1(folder) for folder in _groups(system, "cpu")),
    ]
    return min((limit for limit in limits if limit is not None), default=None)


def cpu_set(system: Path) -> set[int] | None:
    """CPU numbers allowed by all cpusets of this process; None without a limit."""
    allowed: set[int] | None = None
    for controller, names in (("", ("cpuset.cpus.effective",)), ("cpuset", ("cpuset.effective_cpus", "cpuset.cpus"))):
        for folder in _groups(system, controller):
            listed = next((cpus for name in names if (cpus := _cpu_list(_text(folder / name)))), None)
            if listed:
                allowed = listed if allowed is None else allowed & listed
    return allowed


def _groups(system: Path, controller: str) -> Iterator[Path]:
    """Folders of this process's group and its ancestors. controller: empty for version 2."""
    mounts = list(_mounts(system, controller)) or [
        (system / folder, PurePosixPath("/")) for folder in _CONVENTIONAL[controller] if _is_dir(system / folder)
    ]
    path = _membership(system, controller)
    for mounted, root in mounts:
        # The path is relative to the root of the hierarchy or of a cgroup namespace, and the mount may cover only a
        # part of it. If they do not match, the mount is the process's own group.
        inside = path.relative_to(root) if path.is_relative_to(root) else PurePosixPath()
        if ".." in inside.parts:
            inside = PurePosixPath()
        yield mounted
        for depth in range(1, len(inside.parts) + 1):
            yield mounted.joinpath(*inside.parts[:depth])


def _membership(system: Path, controller: str) -> PurePosixPath:
    """Path of this process's group, from /proc/self/cgroup: lines of hierarchy, controllers and path."""
    for line in _text(system / "proc/self/cgroup").splitlines():
        hierarchy, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controller in controllers.split(",") and (controller or hierarchy == "0") and path.startswith("/"):
            return PurePosixPath(path)
    return PurePosixPath("/")


def _mounts(system: Path, controller: str) -> Iterator[tuple[Path, PurePosixPath]]:
    """Mount point of the hierarchy and the mounted part of it, from /proc/self/mountinfo."""
    for line in _text(system / "proc/self/mountinfo").splitlines():
        before, dash, after = line.partition(" - ")
        fields, kinds = before.split(), after.split()
        if not dash or len(fields) < 5 or len(kinds) < 3:
            continue
        wanted = kinds[0] == "cgroup" and controller in kinds[2].split(",") if controller else kinds[0] == "cgroup2"
        if wanted:
            root, point = (_unescaped(field) for field in fields[3:5])
            yield system / point.lstrip("/"), PurePosixPath(root)


def _quota_v2(folder: Path) -> float | None:
    quota, _, period = _text(folder / "cpu.max").strip().partition(" ")
    return _ratio(quota, period or "100000")


def _quota_v1(folder: Path) -> float | None:
    return _ratio(*(_text(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")))


def _ratio(quota: str, period: str) -> float | None:
    """quota / period; None without a limit ("max" in version 2, -1 in version 1) and for invalid values."""
    if not re.fullmatch("[0-9]{1,18}", quota) or not re.fullmatch("[0-9]{1,18}", period) or not int(period):
        return None
    return int(quota) / int(period) or None


def _cpu_list(text: str) -> set[int]:
    """The CPUs of a list such as ``0-3,8,10-11``; empty if malformed."""
    cpus: set[int] = set()
    for part in text.strip().split(","):
        found = re.fullmatch(r"\s*([0-9]{1,5})(?:-([0-9]{1,5}))?\s*", part)
        if not found:
            return set()
        cpus.update(range(int(found[1]), int(found[2] or found[1]) + 1))
    return cpus


def _unescaped(field: str) -> str:
    """Decode the octal escapes of mountinfo for space, tab, newline and backslash."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), field)


def _is_dir(folder: Path) -> bool:
    try:
        return folder.is_dir()
    except OSError:
        return False


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except (OSError, ValueError):
        return ""


def whole_cpus(quota: float) -> int:
    """Number of threads for a quota: rounded up, at least 1. The last thread is throttled for part of each period, but
    throughput is still higher than with the fraction unused."""
    return max(1, math.ceil(quota - 1e-9))
