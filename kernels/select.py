"""Choose a kernel for a problem without having measured the machine: by counts of work and nominal ceilings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from .pattern import parse_pattern
from .problem import Problem
from .spec import Device, KernelSpec, Machine, NetworkLayout, Unit

CLOCK_HZ = 3.0e9
"""Assumed: a usual all-core clock of server CPUs."""

FLOP_PER_CYCLE: dict[Unit, dict[str, float]] = {
    "fma_f32": {"avx512": 64.0, "avx2": 32.0, "baseline": 8.0},
    "fma_f16": {"avx512fp16": 128.0, "avx512": 32.0, "avx2": 16.0, "baseline": 2.0},
    "dot_bf16": {"amx": 1024.0, "avx512bf16": 128.0, "avx512": 32.0, "avx2": 16.0, "baseline": 4.0},
    "dot_int8": {"amx": 2048.0, "avx512vnni": 256.0, "avx512": 128.0, "avx2": 64.0, "baseline": 8.0},
    "tile_bf16": {"amx": 1024.0},
    "tile_int8": {"amx": 2048.0},
}
"""Of one core, best instruction set first. Datasheet: two multiply-add units of 16 (AVX-512) or 8 lanes (AVX2), one of
4-lane multiply and add (SSE2); two VDPBF16PS or VPDPBUSD; an AMX tile product of 16 x 16 sums over 64 bytes in 16
cycles. Assumed: without its instruction, a half-precision format is widened and computed at half the rate of float32.
A dot unit of a library may be a tile product inside. Only kernels of one dtype compete, so dtypes are never weighed."""

LOAD_BYTE_PER_CYCLE: dict[str, float] = {"avx512": 88.0, "avx2": 50.0, "baseline": 24.0}
"""From L1, one core. Measured (AVX-512): multiply-adds with one 64-byte load each at 170 Gflop/s and 3.84 GHz; assumed:
the same share of the two loads a cycle of AVX2 and SSE2."""

DRAM_BYTE_PER_S = 10.0e9
"""Assumed: what one core of a server CPU draws from memory."""

GPU_FLOP_PER_S: dict[Unit, float] = {
    "gpu_f32": 19.5e12,
    "gpu_tf32": 156e12,
    "gpu_tf32x3": 52e12,
    "gpu_f16": 312e12,
    "gpu_bf16": 312e12,
    "gpu_fp8": 312e12,
    "gpu_int8": 624e12,
    "gpu_f16_2:4": 624e12,
    "gpu_bf16_2:4": 624e12,
}
"""Datasheet of the NVIDIA A100, which has no fp8 and computes it in half precision."""
GPU_MULTIPROCESSORS = 108
GPU_L2_BYTE_PER_S, GPU_DRAM_BYTE_PER_S = 4.5e12, 2.0e12
"""Datasheet of the A100 of 80 GB (memory); assumed (cache)."""

NAMES: dict[Device, str] = {"cpu": "the CPU", "cuda": "a CUDA GPU"}


@dataclass(frozen=True, slots=True, kw_only=True)
class NoKernel:
    """No kernel of the registry can run the problem; why not, kernel by kernel."""

    reasons: tuple[tuple[str, str], ...]
    """(kernel name, reason)."""
    message: str


def select(problem: Problem, machine: Machine, registry: Sequence[KernelSpec]) -> KernelSpec | NoKernel:
    """The eligible kernel with the least nominal time; the earlier one in the registry where times are equal.

    Dense kernels run any weight pattern, so a pattern whose sparsity is not worth skipping gets a dense kernel.
    """
    candidates = eligible(problem, machine, registry)
    if candidates:
        return min(candidates, key=lambda kernel: nominal_time_s(kernel, problem, machine))
    reasons = tuple((kernel.name, _why_no_candidate(kernel, problem, machine) or "") for kernel in registry)
    fitting = sorted(
        {reason for kernel, (_, reason) in zip(registry, reasons, strict=True) if _fits(kernel, problem, machine)}
    )
    return NoKernel(
        reasons=reasons,
        message=f"no kernel can run this {problem.op} in {problem.dtype} with pattern {problem.pattern!r}: "
        + ("; ".join(fitting) or "none is registered for it"),
    )


def eligible(problem: Problem, machine: Machine, registry: Sequence[KernelSpec]) -> tuple[KernelSpec, ...]:
    """The kernels that can run a problem on activations as torch has them: those that skip a part of its pattern, and
    the dense ones. Kernels that stay in a blocked layout are no rivals of these: alone they leave out the reorders.
    """
    return tuple(kernel for kernel in registry if _why_no_candidate(kernel, problem, machine) is None)


def why_ineligible(kernel: KernelSpec, problem: Problem, machine: Machine) -> str | None:
    """Why a kernel cannot run a problem, or None where it can, on activations in its own layout."""
    if kernel.device != machine.device:
        return f"runs on {NAMES[kernel.device]} only, the machine is {machine.device!r}"
    if kernel.op != problem.op:
        return f"runs {kernel.op}, the problem is {problem.op}"
    if kernel.dtype != problem.dtype:
        return f"computes in {kernel.dtype}, the problem asks for {problem.dtype}"
    if "dense" not in kernel.patterns and set(kernel.patterns).isdisjoint(parse_pattern(problem.pattern).kinds):
        return f"skips {', '.join(kernel.patterns)}; the pattern is {problem.pattern!r}"
    if kernel.isa != "any" and kernel.isa not in machine.isa:
        return f"needs {kernel.isa}, this machine allows {', '.join(machine.isa)}"
    return kernel.why_unsupported(problem, machine)


def nominal_time_s(kernel: KernelSpec, problem: Problem, machine: Machine) -> float:
    """Time of one run under the nominal ceilings: arithmetic or loads, whichever is longer, then memory."""
    cost = kernel.cost(problem)
    if cost.unit in GPU_FLOP_PER_S:
        busy_frac = cost.tasks / (math.ceil(cost.tasks / GPU_MULTIPROCESSORS) * GPU_MULTIPROCESSORS)
        core_s = max(cost.flop / GPU_FLOP_PER_S[cost.unit], cost.bytes_streamed / GPU_L2_BYTE_PER_S) / busy_frac
        return core_s + (cost.bytes_moved + cost.bytes_copied) / GPU_DRAM_BYTE_PER_S
    workers = min(problem.threads, cost.tasks)
    flop_per_s = _rate(FLOP_PER_CYCLE[cost.unit], kernel, machine) * CLOCK_HZ
    load_byte_per_s = _rate(LOAD_BYTE_PER_CYCLE, kernel, machine) * CLOCK_HZ
    # Values that are dealt out one by one take about a cycle each.
    core_s = max(cost.flop / flop_per_s, cost.bytes_streamed / load_byte_per_s) + cost.values_dealt / CLOCK_HZ
    memory_s = (cost.bytes_moved + cost.bytes_copied) / DRAM_BYTE_PER_S
    return (core_s + memory_s) / workers


def _rate(table: dict[str, float], kernel: KernelSpec, machine: Machine) -> float:
    """Of the kernel's own instruction set, or for a library the best that the machine allows."""
    if kernel.isa in table:
        return table[kernel.isa]
    return next((rate for isa, rate in table.items() if isa in machine.isa), table["baseline"])


def _why_no_candidate(kernel: KernelSpec, problem: Problem, machine: Machine) -> str | None:
    if kernel.layout not in get_args(NetworkLayout):
        return f"takes activations in {kernel.layout}, which networks do not have between their layers"
    return why_ineligible(kernel, problem, machine)


def _fits(kernel: KernelSpec, problem: Problem, machine: Machine) -> bool:
    return (kernel.op, kernel.dtype, kernel.device) == (problem.op, problem.dtype, machine.device)
