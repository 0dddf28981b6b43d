"""The machine that a plan is to run on: its CPU, or its GPU where the plan's kernels are a GPU's."""

from __future__ import annotations

from ..kernels.errors import UnsupportedError
from ..kernels.gpu.machine import why_no_gpu
from ..kernels.here import machine_here
from ..kernels.registry import kernel_named
from ..kernels.spec import Device, Machine
from ..planner.schema import Plan


def device_of_plan(plan: Plan) -> Device:
    """Where the kernels of a plan run; the CPU for a plan without layers.

    Raises
    ------
    InputError
        If this version has no kernel of a name in the plan.
    """
    return kernel_named(plan.layers[0].dense.kernel).device if plan.layers else "cpu"


def planned_machine(plan: Plan) -> Machine:
    """What the machine at hand allows on the device of a plan.

    Raises
    ------
    UnsupportedError
        If the plan is for a GPU and there is none here.
    """
    device = device_of_plan(plan)
    if device == "cuda" and (reason := why_no_gpu()):
        raise UnsupportedError(
            f"the plan is for a GPU ({plan.machine}), which is missing here: {reason}; run it where there is one, or "
            "plan again with a profile of this machine"
        )
    return machine_here(device)
