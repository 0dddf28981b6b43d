"""Profiles of other machines and versions: what they are good for, and what they are not."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

from ..kernels.cpu import TORCH_OPS, capped, detect_machine
from ..kernels.errors import InputError, SparseplanWarning, UnsupportedError
from ..kernels.gpu.machine import CUSPARSELT, detect_gpu, why_no_gpu
from ..kernels.here import machine_here
from ..kernels.spec import Machine
from ..profiles.fingerprint import differences, other_machine, read_fingerprint
from ..profiles.schema import MachineProfile

LIBRARIES = {"mkldnn": "__onednn", "mkl": "__mkl"}
"""By the namespace of a library's operators in torch: the end of the names of kernels that need them."""


def machine_of(profile: MachineProfile, path: Path) -> Machine:
    """The machine that a profile speaks of, which need not be this one; warns where times may not carry over.

    What another machine can run is read from its profile, so that kernels are planned for it that cannot run here.
    """
    here = detect_gpu() if profile.device == "cuda" and why_no_gpu() is None else detect_machine()
    found = read_fingerprint(here)
    if not differences(profile.fingerprint, found):
        return here
    if not other_machine(profile.fingerprint, found):
        warn_of_versions(profile, path, here)
        return here
    _warn(
        profile,
        path,
        here,
        f"times are predicted for the machine of the profile, {profile.machine_name}, and what is planned may "
        "not run or not pay here; make a profile with 'sparseplan profile' to plan for this machine",
    )
    if profile.device == "cuda":
        has_cusparselt = any(sample.kernel.endswith("__cusparselt") for sample in profile.samples)
        return Machine(
            isa=profile.fingerprint.isa, torch_ops=(CUSPARSELT,) if has_cusparselt else (), device=profile.device
        )
    present = {
        library
        for library, ending in LIBRARIES.items()
        if any(sample.kernel.endswith(ending) for sample in profile.samples)
    }
    return Machine(
        isa=capped(profile.fingerprint.isa, os.environ, of="the profile"),
        torch_ops=tuple(operator for operator in TORCH_OPS if operator.partition("::")[0] in present),
    )


def measuring_machine(profile: MachineProfile, path: Path) -> Machine:
    """The machine at hand, on the device of a profile that measurements are to be added to or compared with.

    Raises
    ------
    UnsupportedError
        If the profile is of a GPU and there is none here.
    """
    if profile.device == "cuda" and (reason := why_no_gpu()):
        raise UnsupportedError(
            f"{path} is of a GPU ({profile.machine_name}), which is missing here: {reason}; measure where there is "
            "one, or give a profile of this CPU"
        )
    return machine_here(profile.device)


def warn_of_versions(profile: MachineProfile, path: Path, machine: Machine) -> None:
    """Warn where a profile was made here, but with other versions or another share of the machine."""
    if differences(profile.fingerprint, read_fingerprint(machine)):
        _warn(
            profile,
            path,
            machine,
            "times may have changed with it; make the profile again with 'sparseplan profile' to be certain",
        )


def require_here(profile: MachineProfile, path: Path, machine: Machine, *, wanted: str) -> None:
    """Refuse to measure for a profile of another machine.

    Raises
    ------
    InputError
        Says what differs.
    """
    other = other_machine(profile.fingerprint, read_fingerprint(machine))
    if other:
        raise InputError(
            f"{path} cannot be {wanted} here: that takes measurements on its own machine ({'; '.join(other)}); run "
            "this command there, or make a new profile on this machine"
        )


def _warn(profile: MachineProfile, path: Path, machine: Machine, consequence: str) -> None:
    other = differences(profile.fingerprint, read_fingerprint(machine))
    warnings.warn(
        f"{path} was not made on this machine as it is now ({'; '.join(other)}); {consequence}",
        SparseplanWarning,
        stacklevel=4,
    )
