"""Sparse kernels of a GPU against the best dense ones, in one run: the table of `make test-gpu`.

Every kernel's result is compared with a float64 reference on rows of the output before it is timed; times are medians
of CUDA events, of replayed graphs and of eager calls, with a warm and a flushed L2 cache.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sparseplan.kernels.errors import SparseplanError
from sparseplan.kernels.gpu.column_lists import Tile
from sparseplan.kernels.gpu.gather_product import pack_product, run_product, tile_of
from sparseplan.kernels.inputs import LayerInputs, random_inputs
from sparseplan.kernels.problem import Problem
from sparseplan.kernels.reference import error_limit, relative_error
from sparseplan.kernels.registry import REGISTRY
from sparseplan.kernels.sas import expand_for, wide_problem
from sparseplan.kernels.select import eligible
from sparseplan.kernels.spec import KernelSpec, Machine
from sparseplan.kernels.weights import make_weight
from sparseplan.profiles.cuda_timing import Cache, CudaTiming, Gpu, Launch

Call = Callable[[], Tensor]
SEED = 0
CASE_S = 0.25
"""For the samples of all rivals of a case under one way of timing."""
CHECKED_IMAGES = 1
CHECKED_ROWS = 64
"""Rows of a linear whose outputs are compared with the reference; all columns of each."""
WAYS: tuple[tuple[Launch, Cache], ...] = (("graph", "warm"), ("graph", "flushed"), ("eager", "warm"))
SQUARE = Problem(op="linear", n=4096, c_in=4096, c_out=4096, dtype="bfloat16")
SIZES = ((256, 64, 56), (256, 128, 28), (256, 256, 14), (256, 512, 7))


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A sparse problem with the speedup over the best dense kernel that is asked of it, or None."""

    name: str
    problem: Problem
    asked: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One kernel in one case under one way of timing.

    Attributes
    ----------
    speedup : float or None
        Of the best dense kernel's time over this one's, in the same alternation.
    reason : str or None
        Why there is no time.
    """

    case: str
    kernel: str
    launch: str
    cache: str
    time_s: float | None
    low_s: float | None
    high_s: float | None
    speedup: float | None
    asked: float | None
    rel_error: float | None
    reason: str | None


def cases() -> tuple[Case, ...]:
    """The goals first, then what else tells something."""
    found = [
        Case(name="2:4 linear 4096^3", problem=SQUARE.with_sparsity("2:4", 0.5), asked=1.5),
        Case(name="64x64 blocks 75 % linear 4096^3", problem=SQUARE.with_sparsity("block:64x64", 0.75), asked=2.5),
        Case(name="64x64 blocks 90 % linear 4096^3", problem=SQUARE.with_sparsity("block:64x64", 0.9), asked=5.0),
    ]
    for _, channels, size in SIZES:
        layer = Problem(
            op="conv2d",
            n=64,
            c_in=channels,
            c_out=channels,
            h_in=size,
            w_in=size,
            kernel=(3, 3),
            padding=(1, 1),
            dtype="bfloat16",
        )
        name = f"64x64 blocks 75 % ResNet-50 3x3 of {channels}, batch 64"
        found.append(Case(name=name, problem=layer.with_sparsity("block:64x64", 0.75), asked=2.0))
    # The tightest bound of SAS is the dense product over all slots of an input that is there: no pass makes it.
    found.append(Case(name="SAS 1:2 linear 4096^3", problem=SQUARE.with_sparsity("sas:1:2", 0.5), asked=1.4))
    for side in (32, 16, 128):
        name = f"{side}x{side} blocks 75 % linear 4096^3"
        found.append(Case(name=name, problem=SQUARE.with_sparsity(f"block:{side}x{side}", 0.75), asked=None))
    for dtype in ("float16", "float32"):
        for pattern, sparsity in (("block:64x64", 0.75), ("shape", 0.5)):
            problem = replace(SQUARE.with_sparsity(pattern, sparsity), dtype=dtype)
            found.append(Case(name=f"{pattern} {sparsity:.0%} linear 4096^3 {dtype}", problem=problem, asked=None))
    for pattern, sparsity in (("64:2:8", 0.75), ("64:2:16", 0.875), ("128:2:16", 0.875)):
        problem = SQUARE.with_sparsity(pattern, sparsity)
        found.append(Case(name=f"{pattern} linear 4096^3", problem=problem, asked=None))
    single = replace(SQUARE, n=1)
    found.append(Case(name="64x64 blocks 90 % one row", problem=single.with_sparsity("block:64x64", 0.9), asked=None))
    found.append(Case(name="2:4 one row", problem=single.with_sparsity("2:4", 0.5), asked=None))
    for name, layer in (("linear, one row", single), ("ResNet-50 3x3 of 256, batch 64", found[5].problem)):
        found.append(Case(name=f"SAS 1:2 {name}", problem=layer.with_sparsity("sas:1:2", 0.5), asked=None))
    found.append(Case(name="shape 50 % linear 4096^3", problem=SQUARE.with_sparsity("shape", 0.5), asked=None))
    exact = replace(found[4].problem, dtype="float32").with_sparsity("unstructured", 0.95)
    found.append(Case(name="95 % zeros anywhere, ResNet-50 3x3 of 128, float32", problem=exact, asked=None))
    return tuple(found)


def measure_case(
    case: Case, *, machine: Machine, device: torch.device, gpu: Gpu, ways: Sequence[tuple[Launch, Cache]] = WAYS
) -> Iterator[Row]:
    """Check and time every kernel that skips the case's zeros, and every dense one."""
    generator = torch.Generator(device=device).manual_seed(SEED)
    with device:
        inputs = random_inputs(case.problem, make_weight(case.problem, generator), generator)
    right: list[tuple[KernelSpec, Call]] = []
    errors: dict[str, float] = {}
    for kernel, layer in _rivals(inputs, machine):
        try:
            packed = layer.pack(kernel)
            errors[kernel.name] = checked_error(layer, kernel, packed)
        except (RuntimeError, SparseplanError) as failure:
            # What torch, Triton and the driver raise; the other kernels still have something to say.
            yield Row(**_blank(case, kernel.name), rel_error=None, reason=_first_line(failure))
            continue
        if errors[kernel.name] > error_limit(case.problem):
            wrong = f"wrong result: the limit of the relative error is {error_limit(case.problem):g}"
            yield Row(**_blank(case, kernel.name), rel_error=errors[kernel.name], reason=wrong)
            continue
        right.append((kernel, partial(kernel.run, packed, layer.x_for(kernel))))
    if not any(kernel.patterns != ("dense",) for kernel, _ in right):
        yield Row(**_blank(case, "none"), rel_error=None, reason="no kernel of this machine skips the zeros")
    for launch, cache in ways:
        timing = CudaTiming(gpu=gpu, launch=launch, cache=cache)
        ready = []
        for kernel, call in right:
            failed = _failure(timing, call)
            if failed is None:
                ready.append((kernel, call))
            else:
                blank = _blank(case, kernel.name) | {"launch": launch, "cache": cache}
                yield Row(**blank, rel_error=errors[kernel.name], reason=failed)
        with torch.inference_mode():
            times = timing.measure_alternating([call for _, call in ready], budget_s=CASE_S) if ready else ()
        found = list(zip([kernel for kernel, _ in ready], times, strict=True))
        dense_s = min((time_s.median for kernel, time_s in found if kernel.patterns == ("dense",)), default=None)
        for kernel, time_s in found:
            yield Row(
                case=case.name,
                kernel=kernel.name,
                launch=launch,
                cache=cache,
                time_s=time_s.median,
                low_s=time_s.low,
                high_s=time_s.high,
                speedup=None if dense_s is None else dense_s / time_s.median,
                asked=case.asked,
                rel_error=errors[kernel.name],
                reason=None,
            )


def _rivals(inputs: LayerInputs, machine: Machine) -> Iterator[tuple[KernelSpec, LayerInputs]]:
    """Every kernel that runs the layer; of a SAS layer also the dense ones over all slots, on a wide input."""
    problem = inputs.problem
    yield from ((kernel, inputs) for kernel in eligible(problem, machine, REGISTRY))
    if (wide := wide_problem(problem)) != problem.as_dense():
        doubled = replace(inputs, problem=wide, x=expand_for(problem, inputs.x))
        yield from ((kernel, doubled) for kernel in eligible(wide, machine, REGISTRY))


def _failure(timing: CudaTiming, call: Call) -> str | None:
    """Why a call cannot be timed in this way, as libraries that refuse to be recorded, or None."""
    try:
        with torch.inference_mode():
            call()
            timing.gpu.wait()
            if timing.launch == "graph":
                timing.gpu.graph(call, 1)()
                timing.gpu.wait()
    except (RuntimeError, SparseplanError) as failure:
        return _first_line(failure)
    return None


def _first_line(failure: Exception) -> str:
    return f"{type(failure).__name__}: {(str(failure).splitlines() or [''])[0][:160]}"


def checked_error(inputs: LayerInputs, kernel: KernelSpec, packed: Any) -> float:
    """Relative error on the first image, or the first rows, of the output of the whole problem."""
    with torch.inference_mode():
        y = kernel.run(packed, inputs.x_for(kernel))
    return _error_of(inputs, y)


def _error_of(inputs: LayerInputs, y: Tensor) -> float:
    problem = inputs.problem
    rows = min(problem.n, CHECKED_ROWS if problem.op == "linear" else CHECKED_IMAGES)
    part = replace(inputs, problem=replace(problem, n=rows), x=inputs.x[:rows])
    return relative_error(y[:rows], part.expected())


def tune_tiles(case: Case, *, device: torch.device, gpu: Gpu, until_s: float) -> Iterator[Row]:
    """Time other tiles of the Triton product on a case, until a moment of `time.perf_counter`."""
    generator = torch.Generator(device=device).manual_seed(SEED)
    with device:
        inputs = random_inputs(case.problem, make_weight(case.problem, generator), generator)
    layout = "nhwc" if case.problem.op == "conv2d" else "nchw"
    x = inputs.x.contiguous(memory_format=torch.channels_last) if layout == "nhwc" else inputs.x
    timing = CudaTiming(gpu=gpu)
    for tile in other_tiles(tile_of(case.problem)):
        if time.perf_counter() > until_s:
            return
        name = f"pixels={tile.pixels} depth={tile.depth} warps={tile.warps} stages={tile.stages}"
        try:
            packed = pack_product(case.problem, inputs.weight, inputs.bias, inputs.relu, layout=layout, tile=tile)
            with torch.inference_mode():
                error = _error_of(inputs, run_product(packed, x))
                (time_s,) = timing.measure_alternating([partial(run_product, packed, x)], budget_s=CASE_S / 4)
        except (RuntimeError, SparseplanError) as reason:
            # What the driver and our kernels raise where a tile takes more registers or memory than there is.
            yield Row(**_blank(case, name), rel_error=None, reason=_first_line(reason))
            continue
        yield Row(
            case=case.name,
            kernel=name,
            launch="graph",
            cache="warm",
            time_s=time_s.median,
            low_s=time_s.low,
            high_s=time_s.high,
            speedup=None,
            asked=None,
            rel_error=error,
            reason=None if error <= error_limit(case.problem) else "wrong result",
        )


def other_tiles(chosen: Tile) -> Iterator[Tile]:
    """The chosen tile and its neighbours, those first that seem likelier to be faster."""
    for pixels, warps in ((128, 4), (128, 8), (256, 8), (256, 4), (64, 4)):
        for stages in (chosen.stages, chosen.stages - 2, chosen.stages + 2):
            yield replace(chosen, pixels=pixels, warps=warps, stages=stages)


def _blank(case: Case, kernel: str) -> dict[str, Any]:
    names = ("time_s", "low_s", "high_s", "speedup")
    return {"case": case.name, "kernel": kernel, "launch": "", "cache": "", "asked": case.asked} | dict.fromkeys(names)
