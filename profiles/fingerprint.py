"""The identity of the machine: what a measured time depends on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

import psutil
import torch

from ..kernels.keep_memory import can_keep_memory
from ..kernels.spec import Machine
from .gpu_state import read_gpu_state
from .schema import Fingerprint, GpuIdentity

CGROUP_V1_UNLIMITED_BYTES = 1 << 60
"""Version 1 writes the largest page-aligned number where there is no limit."""


def read_fingerprint(machine: Machine, *, root: Path = Path("/")) -> Fingerprint:
    """Read the identity of this machine.

    Parameters
    ----------
    root : Path
        Where ``proc`` and ``sys`` lie.

    Returns
    -------
    Fingerprint
        Usable cores and memory are those that this process may use: affinity, which cpusets set, and the quotas and
        limits of its cgroup (version 1 or 2) and of all above it; a share of a core counts as one. Cache sizes are
        bytes a core for L1 and L2, of the whole L3, and 0 where the system does not tell, as some virtual machines.
    """
    return Fingerprint(
        cpu_model=_cpu_model(root),
        isa=machine.isa,
        cores_physical=psutil.cpu_count(logical=False) or os.cpu_count() or 1,
        cores_usable=_cores_usable(root),
        l1d_bytes=_cache_bytes(root, 1),
        l2_bytes=_cache_bytes(root, 2),
        l3_bytes=_cache_bytes(root, 3),
        memory_bytes=_memory_bytes(root),
        gpu_model=_gpu_model(),
        operating_system=platform.platform(),
        python_version=platform.python_version(),
        torch_version=importlib.metadata.version("torch"),
        sparseplan_version=importlib.metadata.version("sparseplan"),
        memory_kept=can_keep_memory(),
        gpu=_gpu() if machine.device == "cuda" else None,
    )


_LABELS = {
    "cpu_model": "the CPU",
    "isa": "the instruction sets",
    "cores_physical": "the number of physical cores",
    "cores_usable": "the number of usable cores",
    "l1d_bytes": "the L1 data cache in bytes",
    "l2_bytes": "the L2 cache in bytes",
    "l3_bytes": "the L3 cache in bytes",
    "memory_bytes": "the memory in bytes",
    "gpu_model": "the GPU",
    "gpu": "the properties of the GPU",
    "operating_system": "the operating system",
    "python_version": "the Python version",
    "torch_version": "the torch version",
    "sparseplan_version": "the sparseplan version",
    "memory_kept": "whether memory that tensors free is kept",
}
MEMORY_TOLERANCE_FRAC = 0.02
"""Kernels reserve a little more or less memory from boot to boot."""


MACHINE_FIELDS = ("cpu_model", "isa", "cores_physical", "l1d_bytes", "l2_bytes", "l3_bytes", "gpu")
"""What one machine keeps, whatever share of it a process gets and whatever is installed."""


def other_machine(a: Fingerprint, b: Fingerprint) -> tuple[str, ...]:
    """In what the machine itself differs from fingerprint `a` to `b`, one sentence each; empty where it is the same."""
    return tuple(
        f"{_LABELS[name]}: {_shown(getattr(a, name))} there, {_shown(getattr(b, name))} here"
        for name in MACHINE_FIELDS
        if getattr(a, name) != getattr(b, name)
    )


def differences(a: Fingerprint, b: Fingerprint) -> tuple[str, ...]:
    """What differs from fingerprint `a` to fingerprint `b`, one sentence each; empty where times carry over."""
    sentences = []
    for name, label in _LABELS.items():
        before, now = getattr(a, name), getattr(b, name)
        if name == "memory_bytes" and abs(before - now) <= MEMORY_TOLERANCE_FRAC * before:
            continue
        if before != now:
            sentences.append(f"{label}: {_shown(before)} there, {_shown(now)} here")
    return tuple(sentences)


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(value) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value)


def _cpu_model(root: Path) -> str:
    for line in _text(root / "proc/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Model") and value.strip():
            return value.strip()
    return platform.processor() or platform.machine()


def _gpu_model() -> str | None:
    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None


def _gpu() -> GpuIdentity:
    device = torch.cuda.get_device_properties(torch.cuda.current_device())
    try:
        triton_version = importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        triton_version = None
    return GpuIdentity(
        compute_capability=f"{device.major}.{device.minor}",
        multiprocessors=device.multi_processor_count,
        l2_bytes=device.L2_cache_size,
        memory_bytes=device.total_memory,
        driver_version=read_gpu_state().driver_version,
        cuda_version=torch.version.cuda,
        triton_version=triton_version,
    )


def _cache_bytes(root: Path, level: int) -> int:
    for folder in sorted((root / "sys/devices/system/cpu/cpu0/cache").glob("index*")):
        if _text(folder / "level") == str(level) and _text(folder / "type") in ("Data", "Unified"):
            return _size_bytes(_text(folder / "size"))
    return 0


def _size_bytes(text: str) -> int:
    scale = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}.get(text[-1:], 1)
    digits = text.rstrip("KMG")
    return int(digits) * scale if digits.isdigit() else 0


def _cores_usable(root: Path) -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limits = [float(cores)]
    for folder in _cgroup_folders(root, "cpu"):
        quota, _, period = _text(folder / "cpu.max").partition(" ")
        quota = quota or _text(folder / "cpu.cfs_quota_us")
        period = period or _text(folder / "cpu.cfs_period_us")
        if quota.isdigit() and period.isdigit():
            limits.append(int(quota) / int(period))
    return max(1, int(min(limits)))


def _memory_bytes(root: Path) -> int:
    limits = [psutil.virtual_memory().total]
    for folder in _cgroup_folders(root, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            limit = _text(folder / name)
            if limit.isdigit() and int(limit) < CGROUP_V1_UNLIMITED_BYTES:
                limits.append(int(limit))
    return min(limits)


def _cgroup_folders(root: Path, controller: str) -> list[Path]:
    """The process's cgroup and all above it, for version 2 and version 1; any of them may set the limit."""
    folders: list[Path] = []
    for line in _text(root / "proc/self/cgroup").splitlines():
        hierarchy, controllers, path = line.split(":", 2)
        if hierarchy == "0":
            mount = root / "sys/fs/cgroup"
        elif controller in controllers.split(","):
            mount = root / "sys/fs/cgroup" / controller
        else:
            continue
        inside = mount / path.lstrip("/")
        folders += [inside, *(parent for parent in inside.parents if parent.is_relative_to(mount))]
    return folders


def _text(path: Path) -> str:
    """Content of a file of the system, empty where it is absent or closed to us."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
