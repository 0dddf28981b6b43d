"""Compile the Triton code that goals and profile will ask for, on all cores: one after another it takes minutes.

Every process runs its layers once on the GPU; Triton keeps compiled code on disk, where later processes find it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context

import torch

from benchmarks.gpu.goals import cases
from sparseplan.kernels.errors import SparseplanError
from sparseplan.kernels.gpu.gather_product import KERNELS, innermost_of, specialisation
from sparseplan.kernels.gpu.machine import detect_gpu
from sparseplan.kernels.inputs import random_inputs
from sparseplan.kernels.problem import Problem
from sparseplan.kernels.registry import kernel_named
from sparseplan.kernels.select import why_ineligible
from sparseplan.kernels.spec import KernelSpec, Machine
from sparseplan.kernels.weights import make_weight
from sparseplan.profiles.gpu_spread import gpu_problems

MOST_PROCESSES = 12
"""Each loads torch and holds a context of the device, some 500 MB of its memory."""
FIRST = 250
"""Problems of the profile that are looked at: more than it measures in a minute or two."""


Job = tuple[str, Problem]
"""A kernel's name, and what it runs once."""


def compile_first() -> str:
    """Compile, and say how it went."""
    begin_s = time.perf_counter()
    wanted = to_compile((*(case.problem for case in cases()), *gpu_problems("standard")[:FIRST]), detect_gpu())
    processes = min(MOST_PROCESSES, len(os.sched_getaffinity(0)), len(wanted))
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        runs = [pool.submit(compile_one, job) for job in wanted]
        failed = [reason for run in as_completed(runs) if (reason := run.result()) is not None]
    spent_s = time.perf_counter() - begin_s
    first = f"{len(wanted)} kernels compiled in {spent_s:.0f} s by {processes} processes, {len(failed)} failed"
    return "\n".join([first, *failed])


def to_compile(problems: Iterable[Problem], machine: Machine) -> tuple[Job, ...]:
    """For each different code the problem of least work, in the order in which codes are first asked for."""
    least: dict[tuple[object, ...], Job] = {}
    for problem in problems:
        for kernel in (each for each in KERNELS if why_ineligible(each, problem, machine) is None):
            key = specialisation(problem, innermost_of(kernel))
            _, known = least.setdefault(key, (kernel.name, problem))
            if problem.flop_dense_equiv < known.flop_dense_equiv:
                least[key] = (kernel.name, problem)
    return tuple(least.values())


def compile_one(job: Job) -> str | None:
    """Run a kernel once; why that failed, or None."""
    name, problem = job
    try:
        run_once(kernel_named(name, KERNELS), problem, torch.device("cuda"))
    except (RuntimeError, SparseplanError) as failure:
        return f"{problem}: {(str(failure).splitlines() or [''])[0]}"
    return None


def run_once(kernel: KernelSpec, problem: Problem, device: torch.device) -> None:
    """Pack and run a kernel, with bias and ReLU as it is measured."""
    generator = torch.Generator(device=device).manual_seed(0)
    with torch.inference_mode(), device:
        inputs = random_inputs(problem, make_weight(problem, generator), generator)
        kernel.run(inputs.pack(kernel), inputs.x_for(kernel))
    if device.type == "cuda":
        torch.cuda.synchronize()
