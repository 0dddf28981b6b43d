"""What every kernel for GPUs asks first: is this its problem, and its machine?"""

from __future__ import annotations

from ..problem import Dtype, Op, Problem
from ..spec import Machine
from .machine import TRITON


def why_not_here(problem: Problem, machine: Machine, *, op: Op, dtype: Dtype) -> str | None:
    """The reason why a kernel for an operation and a dtype on GPUs cannot run a problem on a machine, or None."""
    if problem.op != op:
        return f"runs {op}, not {problem.op}"
    if problem.dtype != dtype:
        return f"computes in {dtype}, not {problem.dtype}"
    return why_no_cuda(machine)


def why_no_cuda(machine: Machine) -> str | None:
    """The reason why no kernel for GPUs runs on a machine, or None."""
    return None if machine.device == "cuda" else f"runs on a CUDA GPU only, the machine is {machine.device!r}"


def why_no_triton(machine: Machine) -> str | None:
    """The reason why Triton's kernels cannot run on a machine with a GPU, or None."""
    if TRITON not in machine.isa:
        return "needs Triton, which is not installed; install sparseplan[gpu]"
    return None if "sm_80" in machine.isa else f"needs sm_80, this machine allows {', '.join(machine.isa)}"
