"""Measure the dense and the planned network end to end, in alternation, and decide which one to ship."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..kernels.dense import TORCH_DTYPES
from ..kernels.errors import SparseplanError
from ..kernels.progress import Progress
from ..kernels.spec import Machine
from ..perfmodel.schema import Interval
from ..planner.options import DTYPES_OF
from ..planner.schema import Plan
from ..profiles.timing import measure_alternating
from .compile import compile_model, is_swapped
from .fuse import fuse
from .hosts import HOSTS, host_call
from .measure_layers import measure_layers
from .schema import Dtype, Host, LayerTime, NetworkTime, Variant

OUTPUT_ERROR_LIMIT: dict[Dtype, float] = {"float32": 1e-3, "bfloat16": 1e-1}
"""Largest output difference over largest output: float32 rounding through ~100 layers; bfloat16 has 8 bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchResult:
    """What was measured, and the compiled network in the form that won.

    Attributes
    ----------
    planned : nn.Module
        The planned network as it was timed, in the dtype that won, without its host.
    output_error : float
        Largest difference between planned and masked network over the largest output.
    """

    networks: tuple[NetworkTime, ...]
    layers: tuple[LayerTime, ...]
    best_dense: NetworkTime
    best_planned: NetworkTime
    speedup: Interval
    planned: nn.Module
    output_error: float

    @property
    def is_faster(self) -> bool:
        """Whether the planned network beats the best dense one beyond doubt of the measurement."""
        return self.speedup.low > 1.0


def bench(
    dense: nn.Module,
    masked: nn.Module,
    *,
    plan: Plan,
    example: Tensor,
    machine: Machine,
    budget_s: float,
    progress: Progress,
) -> BenchResult:
    """Time the network densely and as planned, under every host and every dtype that the plan allows.

    Layers that lose against their dense kernel go back to it first ("never slower"). Both networks have their
    batch-norm folded, and run under the same hosts.

    Parameters
    ----------
    dense, masked : nn.Module
        The network with its original weights, and with the trained weights that carry the plan's zeros.
    example : Tensor
        [N, C, H, W] of the plan's input shape.
    budget_s : float
        For timing; compilation comes on top.

    Raises
    ------
    SparseplanError
        If the planned network computes something else than the masked one.
    """
    layers = measure_layers(masked, plan, budget_s=budget_s / 2, progress=progress)
    losers = [layer.name for layer in layers if layer.reverted]
    variants: dict[Variant, nn.Module] = {
        "dense": fuse(dense).model,
        "planned": compile_model(masked, plan, machine=machine, keep_dense=losers),
    }
    with torch.inference_mode():
        expected = masked.eval()(example)
    rivals: list[tuple[Variant, Host, Dtype]] = [
        (variant, host, dtype) for dtype in DTYPES_OF[plan.dtype_policy] for host in HOSTS for variant in variants
    ]
    kernel_dtypes = {layer.chosen.dtype for layer in plan.layers if is_swapped(layer)}
    calls: list[Callable[[], Tensor]] = []
    error = 0.0
    for index, (variant, host, dtype) in enumerate(rivals):
        progress("building networks", index, len(rivals))
        torch_dtype = TORCH_DTYPES[dtype]
        call = host_call(variants[variant].to(torch_dtype), example.to(torch_dtype), host=host)
        variants[variant].float()
        calls.append(call)
        if variant == "planned":
            error = max(error, _checked_error(call(), expected, host=host, dtypes={dtype, *kernel_dtypes}))
    progress("measuring networks", 0, 1)
    times = measure_alternating(calls, budget_s=budget_s / 2)
    progress("measuring networks", 1, 1)
    networks = tuple(
        NetworkTime(variant=variant, host=host, dtype=dtype, time_s=time_s)
        for (variant, host, dtype), time_s in zip(rivals, times, strict=True)
    )
    best_dense, best_planned = (_fastest(networks, variant) for variant in ("dense", "planned"))
    return BenchResult(
        networks=networks,
        layers=layers,
        best_dense=best_dense,
        best_planned=best_planned,
        speedup=_speedup(best_dense, best_planned),
        planned=variants["planned"].to(TORCH_DTYPES[best_planned.dtype]),
        output_error=error,
    )


def _checked_error(output: Tensor, expected: Tensor, *, host: Host, dtypes: set[Dtype]) -> float:
    error = float((output.float() - expected).abs().max() / expected.abs().max())
    limit = max(OUTPUT_ERROR_LIMIT[dtype] for dtype in dtypes)
    # Written so that NaN fails.
    if not error <= limit:
        raise SparseplanError(
            f"the planned network ({host}, {' and '.join(sorted(dtypes))}) differs from the masked one by {error:.2g} "
            f"of the largest output, allowed is {limit:g}; this is a defect of a kernel, please report it with the plan"
        )
    return error


def _fastest(networks: tuple[NetworkTime, ...], variant: Variant) -> NetworkTime:
    return min((time for time in networks if time.variant == variant), key=lambda time: time.time_s.median)


def _speedup(dense: NetworkTime, planned: NetworkTime) -> Interval:
    return Interval(
        median=dense.time_s.median / planned.time_s.median,
        low=dense.time_s.low / planned.time_s.high,
        high=dense.time_s.high / planned.time_s.low,
    )
