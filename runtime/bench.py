"""Measure the dense and the planned network end to end in this process, in alternation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ..kernels.dense import TORCH_DTYPES
from ..kernels.errors import SparseplanError
from ..kernels.progress import Progress
from ..kernels.spec import Machine
from ..planner.options import network_dtypes
from ..planner.schema import Plan
from ..profiles.stopwatch import HOST, Stopwatch
from .compile import compile_model, is_swapped
from .fuse import fuse
from .hosts import hosts_here, network_calls, on_device
from .measure_layers import measure_layers
from .schema import Dtype, Host, LayerTime, NetworkTime, Take, Variant

OUTPUT_ERROR_LIMIT: dict[Dtype, float] = {"float32": 1e-3, "bfloat16": 1e-1, "int8": 1e-1}
"""Largest output difference over largest output: float32 rounding through ~100 layers; bfloat16 has 8 bits, and so
have the outputs of int8 kernels, whose rounding the masked network leaves out."""
CLOSE_FRAC = 0.15
"""Rivals this much slower than the best of their kind are not measured again: processes differ by up to as much."""

Rival = tuple[Variant, Host, Dtype]


def take(
    dense: nn.Module,
    masked: nn.Module,
    *,
    plan: Plan,
    example: Tensor,
    machine: Machine,
    budget_s: float,
    progress: Progress,
    layers: tuple[LayerTime, ...] | None = None,
    earlier: Take | None = None,
    watch: Stopwatch = HOST,
) -> Take:
    """Time the network densely and as planned, under every host and every dtype that the plan allows.

    Layers that lose against their dense kernel go back to it first ("never slower"). Both networks have their
    batch-norm folded, and run under the same hosts; OpenVINO, where it is installed, runs the dense one.

    Parameters
    ----------
    dense, masked : nn.Module
        The network with its original weights, and with the trained weights that carry the plan's zeros.
    example : Tensor
        One batch of the plan's input shape.
    budget_s : float
        For timing; compilation comes on top.
    layers : tuple of LayerTime or None
        What is known of the swapped layers; None to measure them here, in half of the time.
    earlier : Take or None
        A take of the same networks in another process, or of an earlier plan for this one: only its fast rivals are
        measured again.
    watch : Stopwatch
        Of the machine's device.

    Raises
    ------
    SparseplanError
        If the planned network computes something else than the masked one.
    """
    clock_before_hz = watch.clock_hz()
    example, dense, masked = example.to(watch.device), on_device(dense, watch.device), on_device(masked, watch.device)
    with watch.settings():
        if layers is None:
            layers = measure_layers(masked, plan, budget_s=budget_s / 2, progress=progress, watch=watch)
            budget_s /= 2
        rivals = _all_rivals(plan, machine) if earlier is None else _fast_rivals(earlier)
        variants: dict[Variant, nn.Module] = {
            "dense": fuse(dense).model,
            "planned": compile_model(
                masked,
                plan,
                machine=machine,
                keep_dense=[layer.name for layer in layers if layer.reverted],
                device=watch.device,
            ),
        }
        with torch.inference_mode():
            expected = masked.eval()(example)
        kernel_dtypes = {layer.chosen.dtype for layer in plan.layers if is_swapped(layer)}
        calls: dict[Rival, Callable[[], Tensor]] = {}
        error = 0.0
        ways: dict[tuple[Variant, Dtype], list[Host]] = defaultdict(list)
        for variant, host, dtype in rivals:
            ways[variant, dtype].append(host)
        for index, ((variant, dtype), hosts) in enumerate(ways.items()):
            progress("building networks", index, len(ways))
            x = example.to(TORCH_DTYPES[dtype]) if example.is_floating_point() else example
            found = network_calls(variants[variant].to(TORCH_DTYPES[dtype]), x, hosts, watch)
            variants[variant].float()
            for host, call in found.items():
                calls[variant, host, dtype] = call
                if variant == "planned":
                    error = max(error, _checked_error(call(), expected, host=host, dtypes={dtype, *kernel_dtypes}))
        progress("measuring networks", 0, 1)
        times = watch.networks(list(calls.values()), budget_s=budget_s)
    progress("measuring networks", 1, 1)
    return Take(
        networks=tuple(
            NetworkTime(variant=variant, host=host, dtype=dtype, time_s=time_s)
            for (variant, host, dtype), time_s in zip(calls, times, strict=True)
        ),
        layers=layers,
        output_error=error,
        clock_hz=tuple(hz for hz in (clock_before_hz, watch.clock_hz()) if hz is not None),
    )


def _all_rivals(plan: Plan, machine: Machine) -> list[Rival]:
    variants: tuple[Variant, ...] = ("dense", "planned")
    return [
        (variant, host, dtype)
        for dtype in network_dtypes(plan.dtype_policy)
        for host in hosts_here(machine.device)
        for variant in variants
        if host != "openvino" or variant == "dense"
    ]


def _fast_rivals(earlier: Take) -> list[Rival]:
    best = {
        variant: min(time.time_s.median for time in earlier.networks if time.variant == variant)
        for variant in ("dense", "planned")
    }
    return [
        (time.variant, time.host, time.dtype)
        for time in earlier.networks
        if time.time_s.median <= (1.0 + CLOSE_FRAC) * best[time.variant]
    ]


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


def fastest(networks: Sequence[NetworkTime], variant: Variant) -> NetworkTime:
    """Of one variant the way to run it with the least median."""
    return min((time for time in networks if time.variant == variant), key=lambda time: time.time_s.median)
