"""Run every native kernel of the registry inside guarded memory, each in a process of its own.

A program for `test_guards.py`: prints one line a kernel, ``NAME<tab>what went wrong, or nothing``.
"""

from __future__ import annotations

import inspect
import itertools
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace

import torch
from guarded_memory import GuardedMemory, Place
from test_registry import CONVOLUTIONS, EXAMPLE_OF_KIND, LINEARS
from torch import Tensor

from sparseplan.kernels.cpu import detect_machine
from sparseplan.kernels.dense import MEMORY_FORMATS, TORCH_DTYPES
from sparseplan.kernels.groups import magnitude_mask
from sparseplan.kernels.pattern import parse_pattern
from sparseplan.kernels.problem import Problem
from sparseplan.kernels.registry import REGISTRY
from sparseplan.kernels.select import why_ineligible
from sparseplan.kernels.spec import KernelSpec

MACHINE = detect_machine()
MORE_CONVOLUTIONS = {
    "huge_dilation": Problem(
        op="conv2d", n=1, c_in=3, c_out=5, h_in=70, w_in=90, kernel=(3, 3), dilation=(31, 40), padding=(1, 2)
    ),
    "dilated_into_padding": Problem(
        op="conv2d", n=2, c_in=4, c_out=6, h_in=5, w_in=4, kernel=(3, 3), dilation=(9, 11), padding=(9, 11)
    ),
    "to_one_pixel": Problem(op="conv2d", n=3, c_in=21, c_out=33, h_in=7, w_in=5, kernel=(7, 5)),
    "one_padded_pixel": Problem(op="conv2d", n=2, c_in=17, c_out=35, h_in=1, w_in=1, kernel=(3, 3), padding=(1, 1)),
    "stride_beyond_kernel": Problem(op="conv2d", n=2, c_in=5, c_out=7, h_in=17, w_in=19, kernel=(2, 1), stride=(5, 4)),
    "vectors_and_one": Problem(op="conv2d", n=1, c_in=65, c_out=129, h_in=1, w_in=17, kernel=(1, 3), padding=(0, 1)),
}
MORE_LINEARS = {
    "vectors_and_one": Problem(op="linear", n=5, c_in=129, c_out=65),
    "less_than_a_vector": Problem(op="linear", n=1, c_in=3, c_out=2),
    "long": Problem(op="linear", n=2, c_in=2051, c_out=97),
}


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


def native_kernels() -> list[KernelSpec]:
    """The kernels of all instruction sets that this machine has."""
    return [kernel for kernel in REGISTRY if kernel.isa in MACHINE.isa]


def _run_kernel(kernel: KernelSpec, told: object) -> None:
    torch.set_num_threads(1)
    try:
        ran = 0
        for name, problem in _problems(kernel):
            for place in ("end", "start") if problem.threads == 1 else ("end",):
                print(f"{name}, {place} of the memory", file=told, flush=True)
                _run_case(kernel, problem, place)
                ran += 1
        print("" if ran else "no problem that it runs", file=told)
    except AssertionError as error:
        print(f"{name}: {error}", file=told)


def _problems(kernel: KernelSpec) -> Iterator[tuple[str, Problem]]:
    shapes = CONVOLUTIONS | MORE_CONVOLUTIONS if kernel.op == "conv2d" else LINEARS | MORE_LINEARS
    kinds = [EXAMPLE_OF_KIND.get(kind, kind) for kind in kernel.patterns]
    for (name, shape), pattern, threads in itertools.product(shapes.items(), kinds, (1, 3)):
        if pattern != kinds[0] and name not in ("odd", "tail"):
            continue
        sized = replace(shape.with_sparsity(pattern, 0.0 if pattern == "dense" else 0.6), dtype=kernel.dtype)
        for n in dict.fromkeys((sized.n, 19)):
            problem = replace(sized, n=n, threads=threads)
            if why_ineligible(kernel, problem, MACHINE) is None:
                yield f"{name}, n={n}, {pattern}, {threads} threads", problem


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
    for name, weight in _weights(problem, generator).items():
        memory = GuardedMemory(place)
        packed = kernel.pack(problem, memory.copy(weight.to(dtype).float()), memory.copy(bias), True)
        for added in residuals:
            optional = [] if added is None else [memory.copy(added)]
            with memory.for_outputs():
                y = kernel.run(packed, memory.copy(x), *optional)
            memory.check()
            # Whether it is right is the business of test_registry.py.
            assert not y.isnan().any(), f"weight {name}: a part of the output was not written"


def _weights(problem: Problem, generator: torch.Generator) -> dict[str, Tensor]:
    dense = torch.randn(problem.weight_shape, generator=generator)
    last = torch.zeros_like(dense)
    last[-1, -1, -1, -1] = 1.5
    return {
        "pattern": dense * magnitude_mask(dense, parse_pattern(problem.pattern), problem.sparsity),
        "all_dense": dense,
        "all_zero": torch.zeros_like(dense),
        "last": last,
    }


if __name__ == "__main__":
    sys.exit(main())
