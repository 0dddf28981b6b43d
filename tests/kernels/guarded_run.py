"""Run every native kernel of the registry inside guarded memory, each in a process of its own.

A program for `test_guards.py`: prints one line a kernel, ``NAME<tab>what went wrong, or nothing``.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace

import torch
from guarded_memory import GuardedMemory, Place
from native_cases import native_kernels, problems_of, weights_of

from sparseplan.kernels.inputs import random_inputs
from sparseplan.kernels.problem import Problem
from sparseplan.kernels.spec import KernelSpec


def main() -> None:
    """Fork before each kernel: one that crashes takes no other with it."""
    for kernel in native_kernels():
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(read)
            with os.fdopen(write, "w") as told:
                # A line before each case, so that the last one names the crash; an empty one at the end.
                _run_kernel(kernel, told)
            os._exit(0)
        os.close(write)
        with os.fdopen(read) as lines:
            last = ([line.rstrip("\n") for line in lines] or ["before its first case"])[-1]
        _, status = os.waitpid(child, 0)
        ended = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else ""
        sys.stdout.write(f"{kernel.name}\t{f'{ended} in {last}' if ended else last}\n")


def _run_kernel(kernel: KernelSpec, told: object) -> None:
    torch.set_num_threads(1)
    try:
        ran = 0
        for name, problem in problems_of(kernel, (1, 3)):
            for place in ("end", "start") if problem.threads == 1 else ("end",):
                print(f"{name}, {place} of the memory", file=told, flush=True)
                _run_case(kernel, problem, place)
                ran += 1
        print("" if ran else "no problem that it runs", file=told)
    except AssertionError as error:
        print(f"{name}: {error}", file=told)


def _run_case(kernel: KernelSpec, problem: Problem, place: Place) -> None:
    torch.set_num_threads(problem.threads)
    generator = torch.Generator().manual_seed(3)
    for name, weight in weights_of(problem, generator).items():
        inputs = random_inputs(problem, weight, generator)
        memory = GuardedMemory(place)
        x = memory.copy(inputs.x_for(kernel))
        packed = replace(inputs, weight=memory.copy(inputs.weight), bias=memory.copy(inputs.bias)).pack(kernel)
        # Whether the results are right is the business of test_registry.py.
        with memory.for_outputs():
            y = kernel.run(packed, x)
        memory.check()
        residual = memory.copy(y)
        with memory.for_outputs():
            sums = kernel.run(packed, x, residual)
        memory.check()
        for written in (y, sums):
            assert not written.isnan().any(), f"weight {name}: a part of the output was not written"


if __name__ == "__main__":
    sys.exit(main())
