"""The thread count is what the process was given: affinity, physical cores, container quota."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stageproof.runtime.system.cpus import available_cpus


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Eight CPUs in four cores of two threads: 0 and 4, 1 and 5, and so on. No quota."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    for cpu in range(8):
        folder = tmp_path / f"sys/devices/system/cpu/cpu{cpu}/topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{cpu % 4},{cpu % 4 + 4}\n", encoding="ascii")
    return tmp_path


def write(root: Path, **files: str) -> None:
    folder = root / "sys/fs/cgroup"
    (folder / "cpu").mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        name = name.replace("__", "/").replace("_DOT_", ".")
        (folder / name).write_text(text, encoding="ascii")


def test_one_thread_for_each_physical_core(machine: Path) -> None:
    assert available_cpus(machine) == 4


def test_affinity(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for allowed, expected in (({0}, 1), ({0, 4}, 1), ({0, 1, 4}, 2), ({2, 3, 5}, 3)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda process, allowed=allowed: allowed)
        assert available_cpus(machine) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max 100000", 4),
        ("200000 100000", 2),
        ("150000 100000", 2),
        ("10000 100000", 1),
        ("900000 100000", 4),
        ("?", 4),
    ],
)
def test_quota_of_cgroup_2(machine: Path, text: str, expected: int) -> None:
    write(machine, cpu_DOT_max=text)
    assert available_cpus(machine) == expected


@pytest.mark.parametrize(("quota", "expected"), [("-1", 4), ("300000", 3), ("50000", 1)])
def test_quota_of_cgroup_1(machine: Path, quota: str, expected: int) -> None:
    write(machine, cpu__cpu_DOT_cfs_quota_us=quota, cpu__cpu_DOT_cfs_period_us="100000")
    assert available_cpus(machine) == expected


def test_a_system_that_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert available_cpus(tmp_path) == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert available_cpus(tmp_path) == 1


def test_here() -> None:
    assert 1 <= available_cpus() <= (os.cpu_count() or 1)
