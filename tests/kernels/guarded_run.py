"""Run every native kernel of the registry inside guarded memory, each in a process of its own.

A program for `test_guards.py`: prints one line a kernel, ``NAME<tab>what went wrong, or nothing``.
"""

from __future__ import annotations

import inspect
import os
import signal
import sys

import torch
from guarded_memory import GuardedMemory, Place
from native_cases import native_kernels, problems_of, weights_of

from sparseplan.kernels.dense import MEMORY_FORMATS, TORCH_DTYPES
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
    dtype = TORCH_DTYPES[problem.dtype]
    x = torch.randn(problem.input_shape, generator=generator).to(dtype)
    bias = torch.randn(problem.c_out, generator=generator).to(dtype).float()
    residual = torch.randn(problem.output_shape, generator=generator).to(dtype)
    if problem.op == "conv2d":
        x, residual = (part.contiguous(memory_format=MEMORY_FORMATS[kernel.layout]) for part in (x, residual))
    residuals = [None, residual] if "residual" in inspect.signature(kernel.run).parameters else [None]
    for name, weight in weights_of(problem, generator).items():
        memory = GuardedMemory(place)
        packed = kernel.pack(problem, memory.copy(weight.to(dtype).float()), memory.copy(bias), True)
        for added in residuals:
            optional = [] if added is None else [memory.copy(added)]
            with memory.for_outputs():
                y = kernel.run(packed, memory.copy(x), *optional)
            memory.check()
            # Whether it is right is the business of test_registry.py.
            assert not y.isnan().any(), f"weight {name}: a part of the output was not written"


if __name__ == "__main__":
    sys.exit(main())
