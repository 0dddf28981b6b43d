"""``sparseplan profile``: measure this machine."""

from __future__ import annotations

import warnings
from functools import partial as partial_function
from pathlib import Path

import torch

from ..kernels.cpu import detect_machine
from ..kernels.documents import require_writable
from ..kernels.errors import InputError, SparseplanWarning, UnsupportedError
from ..kernels.gpu.machine import why_no_gpu
from ..kernels.here import machine_here
from ..kernels.progress import Progress, silent
from ..kernels.registry import REGISTRY
from ..kernels.spec import Device, Machine
from ..perfmodel.choose_problems import Chooser
from ..profiles.fingerprint import differences, read_fingerprint
from ..profiles.profile_gpu import GpuBench, profile_gpu
from ..profiles.profile_machine import ProfileRequest, profile_machine
from ..profiles.schema import Budget, MachineProfile
from ..profiles.stopwatch import stopwatch_of
from ..profiles.store import load_profile, save_profile
from .measure_networks import measure_networks

DEFAULT_OUT = Path("profile.json")
PARTIAL_ENDING = ".partial"
"""Beside the profile while it is being made; the same command goes on from it after an interruption."""
DRIFT_LIMIT_FRAC = 0.05


def profile(
    out: str | Path = DEFAULT_OUT,
    budget: Budget = "standard",
    *,
    device: Device = "cpu",
    threads: int | None = None,
    progress: Progress = silent,
) -> MachineProfile:
    """Measure ceilings and kernels of this machine and write its profile; goes on where an interrupted run stopped.

    Parameters
    ----------
    out : path
        Where the profile is written (JSON).
    budget : {"quick", "standard", "full"}
        At most 60 s, 5 min, 30 min.
    device : {"cpu", "cuda"}
    threads : int, optional
        Threads that kernels use; all usable cores when left out.

    Raises
    ------
    InputError
        If the output cannot be written or the thread count is not possible.
    UnsupportedError
        If the device is not there.
    """
    machine = machine_of_device(device, threads)
    target = Path(out)
    partial = target.with_name(target.name + PARTIAL_ENDING)
    for path in (target, partial):
        require_writable(path)
    if device == "cuda":
        return _of_a_gpu(target, budget, machine, progress)
    request = ProfileRequest(budget=budget, threads=usable_threads(threads), machine=machine, registry=REGISTRY)
    result = profile_machine(
        request,
        begun=_begun(partial, request),
        keep=partial_function(save_profile, partial),
        choose=Chooser(machine=machine, registry=REGISTRY),
        progress=progress,
    )
    networks = measure_networks(result, machine=machine, progress=progress)
    result = result.model_copy(update={"networks": networks})
    save_profile(target, result)
    partial.unlink(missing_ok=True)
    if result.drift_frac > DRIFT_LIMIT_FRAC:
        warnings.warn(
            f"the arithmetic peak moved by {result.drift_frac:.0%} while the profile was made; another program or a "
            "changing clock disturbs this machine: times are less certain, make the profile again when it is quiet",
            SparseplanWarning,
            stacklevel=2,
        )
    return result


def machine_of_device(device: Device, threads: int | None) -> Machine:
    """What this machine's CPU or GPU allows.

    Raises
    ------
    InputError
        If a thread count is asked for on a GPU.
    UnsupportedError
        If the device is not there.
    """
    if device == "cuda" and (reason := why_no_gpu()):
        raise UnsupportedError(f"--device cuda: no CUDA GPU: {reason}; use --device cpu, or a machine with a GPU")
    if device == "cuda" and threads is not None:
        raise InputError(f"--threads {threads}: a GPU has none to choose; leave it out with --device cuda")
    return machine_here(device)


def _of_a_gpu(target: Path, budget: Budget, machine: Machine, progress: Progress) -> MachineProfile:
    watch = stopwatch_of("cuda")
    assert watch.gpu is not None
    bench = GpuBench(device=watch.device, gpu=watch.gpu, fingerprint=read_fingerprint(machine))
    result = profile_gpu(budget, machine=machine, registry=REGISTRY, bench=bench, progress=progress)
    # Kept already: compiling whole networks takes long, and an interrupt must not lose the kernels.
    save_profile(target, result)
    networks = measure_networks(result, machine=machine, watch=watch, progress=progress)
    result = result.model_copy(update={"networks": networks})
    save_profile(target, result)
    return result


def _begun(partial: Path, request: ProfileRequest) -> MachineProfile | None:
    """What an interrupted run left, if it asked for the same on the same machine."""
    if not partial.exists():
        return None
    begun = load_profile(partial)
    same = (begun.budget, begun.threads) == (request.budget, request.threads)
    return begun if same and not differences(begun.fingerprint, read_fingerprint(request.machine)) else None


def usable_threads(threads: int | None) -> int:
    """The thread count asked for, or all that this process may use: torch knows of affinity, not of cgroup quotas.

    Raises
    ------
    InputError
        If it is below 1 or above the number of usable cores.
    """
    available = min(torch.get_num_threads(), read_fingerprint(detect_machine()).cores_usable)
    if threads is None:
        return available
    if not 1 <= threads <= available:
        raise InputError(f"--threads {threads}: allowed is 1 to {available}, the usable cores of this machine")
    return threads
