"""CPU limits of control groups: every level counts, in version 1, 2 and both, however they are mounted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stageproof.runtime.system.cgroups import cpu_quota, cpu_set
from stageproof.runtime.system.cpus import available_cpus

ROOT = Path(__file__).resolve().parents[2]

V2 = "30 23 0:26 {root} /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate"
V1 = "34 31 0:31 {root} /sys/fs/cgroup/{name} rw,relatime - cgroup cgroup rw,{name}"


@pytest.fixture(autouse=True)
def sixteen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(16)), raising=False)


def plant(system: Path, **files: str) -> Path:
    """Files of a fake system: `self` and `mounts` of /proc, the others by their path below /sys/fs/cgroup."""
    names = {"self": "proc/self/cgroup", "mounts": "proc/self/mountinfo"}
    for name, text in files.items():
        path = system / names.get(name, f"sys/fs/cgroup/{name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="ascii")
    return system


def v2(system: Path, group: str, root: str = "/", **files: str) -> Path:
    return plant(system, self=f"0::{group}\n", mounts=V2.format(root=root) + "\n", **files)


@pytest.mark.parametrize("limited", ["system.slice", "system.slice/ris.service", "system.slice/ris.service/worker"])
def test_a_limit_at_any_level_of_version_2(tmp_path: Path, limited: str) -> None:
    """systemd's CPUQuota=200% is written in the unit's own group or in a slice above it."""
    files = {f"{limited}/cpu.max": "200000 100000\n", "system.slice/cpu.weight": "100"}
    v2(tmp_path, "/system.slice/ris.service/worker", **files)
    assert cpu_quota(tmp_path) == 2
    assert available_cpus(tmp_path) == 2


def test_the_smallest_of_all_levels_counts(tmp_path: Path) -> None:
    v2(tmp_path, "/a/b/c", **{"a/cpu.max": "300000 100000", "a/b/cpu.max": "800000 100000", "a/b/c/cpu.max": "max 1"})
    assert available_cpus(tmp_path) == 3
    plant(tmp_path, **{"a/b/c/cpu.max": "50000 50000"})
    assert available_cpus(tmp_path) == 1


def test_groups_of_others_do_not_count(tmp_path: Path) -> None:
    v2(tmp_path, "/a/b", **{"a/other/cpu.max": "100000 100000", "a/b/below/cpu.max": "100000 100000"})
    assert available_cpus(tmp_path) == 16


@pytest.mark.parametrize(
    ("text", "expected"),
    [("250000 100000", 3), ("100001 100000", 2), ("1000 100000", 1), ("max 100000", 16), ("400000", 4)],
)
def test_fractions_are_rounded_up(tmp_path: Path, text: str, expected: int) -> None:
    v2(tmp_path, "/a", **{"a/cpu.max": text})
    assert available_cpus(tmp_path) == expected


@pytest.mark.parametrize(
    "text", ["", "?", "0 100000", "200000 0", "-1 100000", "9" * 40 + " 1", "2e5 1e5", "٢ 1", "\0\xff", "1 2 3"]
)
def test_malformed_limits_are_ignored(tmp_path: Path, text: str) -> None:
    v2(tmp_path, "/a/b", **{"a/cpu.max": "300000 100000"})
    (tmp_path / "sys/fs/cgroup/a/b").mkdir()
    (tmp_path / "sys/fs/cgroup/a/b/cpu.max").write_bytes(text.encode("utf-8"))
    assert available_cpus(tmp_path) == 3


@pytest.mark.parametrize(
    ("self", "mounts"),
    [("", ""), ("nonsense\n0\n:\n", "1 2\n - \n a b c d e - f\n"), ("0::no/slash\n", "\0"), ("5:cpu:/x\n", "\n\n")],
)
def test_malformed_files_of_proc_are_ignored(tmp_path: Path, self: str, mounts: str) -> None:
    plant(tmp_path, self=self, mounts=mounts, **{"cpu.max": "200000 100000"})
    assert available_cpus(tmp_path) == 2, "the customary place"
    assert available_cpus(tmp_path / "nothing") == 16


def test_a_folder_where_a_file_should_be(tmp_path: Path) -> None:
    v2(tmp_path, "/a", **{"cpu.max": "500000 100000"})
    (tmp_path / "sys/fs/cgroup/a/cpu.max").mkdir(parents=True)
    assert available_cpus(tmp_path) == 5


def test_a_container_whose_mount_shows_its_own_group(tmp_path: Path) -> None:
    """With a cgroup namespace the process is in "/", and the mounted root has the container's limits."""
    v2(tmp_path, "/", **{"cpu.max": "150000 100000"})
    assert available_cpus(tmp_path) == 2


@pytest.mark.parametrize("group", ["/docker/f00", "/docker/f00/nested", "/", "/../elsewhere"])
def test_a_container_without_a_namespace(tmp_path: Path, group: str) -> None:
    """Its path counts from the host's root, of which only its own part is mounted."""
    v2(tmp_path, group, root="/docker/f00", **{"cpu.max": "200000 100000"})
    assert available_cpus(tmp_path) == 2
    if group.endswith("nested"):
        plant(tmp_path, **{"nested/cpu.max": "100000 100000"})
        assert available_cpus(tmp_path) == 1


@pytest.mark.parametrize("limited", ["", "kubepods/", "kubepods/pod1/"])
def test_a_limit_at_any_level_of_version_1(tmp_path: Path, limited: str) -> None:
    mounts = "\n".join(V1.format(root="/", name=name) for name in ("cpu,cpuacct", "cpuset"))
    files = {f"cpu,cpuacct/{limited}cpu.cfs_quota_us": "200000", f"cpu,cpuacct/{limited}cpu.cfs_period_us": "100000"}
    files |= {"cpu,cpuacct/kubepods/pod1/c/cpu.cfs_quota_us": "-1"}
    plant(tmp_path, self="4:cpu,cpuacct:/kubepods/pod1/c\n3:cpuset:/kubepods\n0::/\n", mounts=mounts, **files)
    assert available_cpus(tmp_path) == 2


def test_a_hybrid_of_both_versions(tmp_path: Path) -> None:
    mounts = (
        f"{V1.format(root='/', name='cpu')}\n{V2.format(root='/').replace('/sys/fs/cgroup', '/sys/fs/cgroup/unified')}"
    )
    files = {"cpu/a/cpu.cfs_quota_us": "600000", "cpu/a/cpu.cfs_period_us": "100000"}
    plant(tmp_path, self="1:cpu:/a\n0::/b\n", mounts=mounts, **files)
    assert available_cpus(tmp_path) == 6
    plant(tmp_path, **{"unified/b/cpu.max": "400000 100000"})
    assert available_cpus(tmp_path) == 4


def test_a_mount_point_with_a_space(tmp_path: Path) -> None:
    plant(
        tmp_path, self="0::/a\n", mounts=V2.format(root="/").replace("/sys/fs/cgroup", r"/sys/fs/cgroup/my\040groups")
    )
    plant(tmp_path, **{"my groups/a/cpu.max": "300000 100000"})
    assert available_cpus(tmp_path) == 3


def test_cpusets_of_every_level(tmp_path: Path) -> None:
    v2(tmp_path, "/a/b", **{"a/cpuset.cpus.effective": "0-3,8,10-11\n", "a/b/cpuset.cpus.effective": "2-9\n"})
    assert cpu_set(tmp_path) == {2, 3, 8}
    assert available_cpus(tmp_path) == 3
    plant(tmp_path, **{"a/b/cpuset.cpus.effective": "\n", "a/cpuset.cpus.effective": "3-1"})
    assert available_cpus(tmp_path) == 16
    plant(tmp_path, **{"a/cpuset.cpus.effective": "40-50"})
    assert available_cpus(tmp_path) == 16, "CPUs that the affinity mask does not have"


def test_cpusets_of_version_1(tmp_path: Path) -> None:
    plant(tmp_path, self="3:cpuset:/jobs\n", mounts=V1.format(root="/", name="cpuset"))
    plant(tmp_path, **{"cpuset/cpuset.cpus": "0-15", "cpuset/jobs/cpuset.cpus": "0-7"})
    assert available_cpus(tmp_path) == 8
    plant(tmp_path, **{"cpuset/jobs/cpuset.effective_cpus": "0-4"})
    assert available_cpus(tmp_path) == 5


def test_a_quota_and_a_cpuset(tmp_path: Path) -> None:
    v2(tmp_path, "/a", **{"a/cpuset.cpus.effective": "0-3", "a/cpu.max": "600000 100000"})
    assert available_cpus(tmp_path) == 4


def test_a_real_nested_group() -> None:
    """Where this machine lets its user make one: the limit is in the parent, the process in its child."""
    base = Path("/sys/fs/cgroup/cpu")
    base, version = (base, 1) if base.is_dir() else (Path("/sys/fs/cgroup"), 2)
    parent = base / f"stageproof-test-{os.getpid()}"
    child = parent / "inner"
    try:
        child.mkdir(parents=True)
        if version == 1:
            (parent / "cpu.cfs_quota_us").write_text("100000", encoding="ascii")
        else:
            (parent / "cpu.max").write_text("100000 100000", encoding="ascii")
    except OSError as error:
        for folder in (child, parent):
            if folder.is_dir():
                folder.rmdir()
        pytest.skip(f"control groups cannot be made here: {error}")
    code = "import sys; sys.stdin.read(); from runtime.system.cpus import available_cpus; print(available_cpus())"
    command = [sys.executable, "-c", code]
    try:
        with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            try:
                (child / "cgroup.procs").write_text(str(process.pid), encoding="ascii")
            except OSError as error:
                process.communicate("", timeout=60)
                pytest.skip(f"a process cannot be moved into a control group here: {error}")
            out, _ = process.communicate("", timeout=60)
        assert out == "1\n"
    finally:
        child.rmdir()
        parent.rmdir()
