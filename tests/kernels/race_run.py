"""Run every native kernel on several threads, under a race checker that ends the process badly (`make race`)."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import patch

import other_native  # noqa: F401  # before the kernels
import torch
from native_agreement import windows_everywhere
from native_cases import native_kernels, problems_of, weights_of

from sparseplan.kernels.channels import keep_channels, put_channels, take_channels
from sparseplan.kernels.inputs import random_inputs
from sparseplan.kernels.problem import Problem
from sparseplan.kernels.spec import KernelSpec

SHAPES = ("tail", "full_blocks", "one_image", "grouped", "strided", "vectors_and_one", "odd")
"""Many and few images, few and many output channels: all ways to share the work."""


def main() -> None:
    torch.set_num_threads(1)
    for kernel in native_kernels():
        _run_shapes(kernel)
    with windows_everywhere():
        for kernel in native_kernels():
            if kernel.op == "conv2d" and "unstructured" in kernel.name and kernel.layout != "nchw":
                _run_shapes(kernel)
    sys.stdout.write("channels\n")
    _run_channels()


def _run_shapes(kernel: KernelSpec) -> None:
    sys.stdout.write(f"{kernel.name}\n")
    sys.stdout.flush()
    for name, problem in problems_of(kernel, (2, 3)):
        if name.split(",")[0] in SHAPES:
            _run(kernel, problem)


def _run(kernel: KernelSpec, problem: Problem) -> None:
    """Twice in a row, then from two Python threads at once: what layers share must not be written."""
    generator = torch.Generator().manual_seed(4)
    inputs = random_inputs(problem, weights_of(problem, generator)["pattern"], generator)
    x, packed = inputs.x_for(kernel), inputs.pack(kernel)
    # torch itself stays on one thread: the race checker does not understand its OpenMP threads.
    with patch.object(torch, "get_num_threads", lambda: problem.threads):
        first, second = kernel.run(packed, x), kernel.run(packed, x)
        assert torch.equal(first, second)
        with ThreadPoolExecutor(2) as pool:
            for y in pool.map(lambda _: kernel.run(packed, x), range(4)):
                assert torch.equal(first, y)


def _run_channels() -> None:
    x, kept = torch.randn(5, 70, 9, 11), torch.arange(0, 70, 3)
    moved = keep_channels(70, kept, x.dtype)
    for threads in (2, 3):
        with patch.object(torch, "get_num_threads", lambda threads=threads: threads):
            taken = take_channels(moved, x)
            assert torch.equal(put_channels(moved, taken, torch.zeros(70))[:, kept], taken)


if __name__ == "__main__":
    sys.exit(main())
