"""The identity of a machine, read from trees made for the purpose."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
from profile_samples import FINGERPRINT

from sparseplan.kernels.spec import Machine
from sparseplan.profiles.fingerprint import differences, read_fingerprint

MACHINE = Machine(isa=("baseline", "avx2"))


def _write(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content + "\n")
    return root


CACHE = "sys/devices/system/cpu/cpu0/cache"
CACHES = {
    f"{CACHE}/index0/level": "1",
    f"{CACHE}/index0/type": "Data",
    f"{CACHE}/index0/size": "48K",
    f"{CACHE}/index1/level": "1",
    f"{CACHE}/index1/type": "Instruction",
    f"{CACHE}/index1/size": "64K",
    f"{CACHE}/index2/level": "2",
    f"{CACHE}/index2/type": "Unified",
    f"{CACHE}/index2/size": "2048K",
    f"{CACHE}/index3/level": "3",
    f"{CACHE}/index3/type": "Unified",
    f"{CACHE}/index3/size": "32M",
}


def test_caches_and_cpu_model(tmp_path: Path) -> None:
    _write(tmp_path, {**CACHES, "proc/cpuinfo": "processor\t: 0\nmodel name\t: Example 9000 CPU"})
    found = read_fingerprint(MACHINE, root=tmp_path)
    assert found.cpu_model == "Example 9000 CPU"
    assert (found.l1d_bytes, found.l2_bytes, found.l3_bytes) == (48 << 10, 2 << 20, 32 << 20)
    assert found.isa == MACHINE.isa
    assert found.gpu_model is None


def test_a_bare_system_gives_zero_caches_and_some_name(tmp_path: Path) -> None:
    found = read_fingerprint(MACHINE, root=tmp_path)
    assert (found.l1d_bytes, found.l2_bytes, found.l3_bytes) == (0, 0, 0)
    assert found.cpu_model
    assert found.memory_bytes == psutil.virtual_memory().total


@pytest.mark.parametrize(("quota", "cores"), [("150000 100000", 1), ("50000 100000", 1), ("max 100000", 8)])
def test_cores_under_cgroup_version_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, cores: int) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)))
    _write(tmp_path, {"proc/self/cgroup": "0::/a/b", "sys/fs/cgroup/a/cpu.max": quota})
    assert read_fingerprint(MACHINE, root=tmp_path).cores_usable == cores


@pytest.mark.parametrize("cores", [1, 3])
def test_cores_of_a_cpuset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cores: int) -> None:
    """The system makes a cpuset the affinity of its processes; a wider quota does not widen it."""
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(cores)))
    _write(tmp_path, {"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "800000 100000"})
    assert read_fingerprint(MACHINE, root=tmp_path).cores_usable == cores


def test_cores_and_memory_under_cgroup_version_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)))
    _write(
        tmp_path,
        {
            "proc/self/cgroup": "5:cpu,cpuacct:/docker/x\n4:memory:/docker/x",
            "sys/fs/cgroup/cpu/docker/x/cpu.cfs_quota_us": "300000",
            "sys/fs/cgroup/cpu/docker/x/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
            "sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes": str(1 << 20),
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
        },
    )
    found = read_fingerprint(MACHINE, root=tmp_path)
    assert found.cores_usable == 3
    assert found.memory_bytes == 1 << 20


def test_memory_under_cgroup_version_2_takes_the_tightest_limit_above(tmp_path: Path) -> None:
    _write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/a/b",
            "sys/fs/cgroup/a/memory.max": str(3 << 20),
            "sys/fs/cgroup/a/b/memory.max": "max",
        },
    )
    assert read_fingerprint(MACHINE, root=tmp_path).memory_bytes == 3 << 20


def test_this_machine_is_like_itself() -> None:
    assert differences(read_fingerprint(MACHINE), read_fingerprint(MACHINE)) == ()


def test_differences_are_sentences() -> None:
    other = FINGERPRINT.model_copy(
        update={"cpu_model": "Other CPU", "isa": ("baseline",), "memory_bytes": int((8 << 30) * 1.01)}
    )
    assert differences(FINGERPRINT, other) == (
        "the CPU: Test CPU there, Other CPU here",
        "the instruction sets: baseline avx2 there, baseline here",
    )
