"""A plan of another machine still computes the right thing, but its times are not those of this one: say so."""

from __future__ import annotations

import warnings

from ..kernels.errors import SparseplanWarning
from ..kernels.spec import Machine
from ..planner.schema import Plan
from ..profiles.fingerprint import read_fingerprint


def warn_if_planned_elsewhere(plan: Plan, machine: Machine) -> None:
    """Warn where a plan was made for another CPU or GPU than this one."""
    found = read_fingerprint(machine)
    here = found.gpu_model if machine.device == "cuda" else found.cpu_model
    if plan.machine != here:
        warnings.warn(
            f"the plan was made for {plan.machine}, this machine is {here}: it may be slower than dense here; plan "
            "again with a profile of this machine",
            SparseplanWarning,
            stacklevel=3,
        )
