"""Direct sparse convolution on a GPU: any zeros, float32, for weights that have few left.

Each output pixel is the sum of its non-zero weights times single input values, on the ordinary arithmetic units: there
are no tiles, so no zero is multiplied, but each multiply-add loads a value, which neighbouring pixels share a line of.
It is for float32 as it is: against half precision on the matrix units it has no chance.

References
----------
Park et al., Faster CNNs with direct sparse convolutions and guided pruning, ICLR 2017 (there on CPUs).
Chen, Escoin: Efficient sparse convolutional neural network inference on GPUs, arXiv:1802.10280.
"""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..check import check_tensor, check_weight_shapes
from ..errors import UnsupportedError
from ..layout import check_residual, empty_activation
from ..pattern import parse_pattern
from ..problem import Problem
from ..spec import Cost, KernelSpec, Machine
from .column_lists import REACH_BITS
from .eligibility import why_no_cuda, why_no_triton
from .machine import TRITON

UNROLL = 4
"""Weights whose loads are in flight together."""
LEAST_PIXELS, MOST_PIXELS = 32, 512
PIXELS_OF_A_WARP = 128
FEW_TILES = 528
"""Four times the multiprocessors of the largest GPUs in use: fewer tiles are made smaller."""
SLOT_BYTES = 12.0
"""A weight, where its input value lies, and its place in the window."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedDirect:
    """The weights that are not zero, output channel after output channel, on the device where the weight lay.

    Attributes
    ----------
    values, starts, reach : Tensor
        [weights], float32, int32 and int32: where the input value lies, in elements from the first pixel that an output
        pixel's window covers in channel 0 of its image, and rows and columns from there, ``rows << 16 | columns``.
    bounds : Tensor
        int32 [K + 1]: the weights of each output channel.
    order : Tensor
        int32 [K]: output channels, those with most weights first.
    """

    problem: Problem
    values: Tensor
    starts: Tensor
    reach: Tensor
    bounds: Tensor
    order: Tensor
    bias: Tensor | None
    relu: bool
    device_code: Any


def pack_direct(problem: Problem, weight: Tensor, bias: Tensor | None, relu: bool) -> PackedDirect:
    """List the non-zero weights of a dense [K, C, R, S], on its own device.

    Raises
    ------
    InputError
        If the weight or the bias does not have the shape of the problem.
    """
    check_weight_shapes(problem, weight, bias)
    kept = weight.detach().float()
    k, c, r, s = kept.nonzero(as_tuple=True)
    (down, right), k_group = problem.dilation, problem.c_out // problem.groups
    channel = torch.div(k, k_group, rounding_mode="floor") * problem.weight_shape[1] + c
    counts = torch.bincount(k, minlength=problem.c_out)
    return PackedDirect(
        problem=problem,
        values=kept[k, c, r, s].contiguous(),
        starts=((channel * problem.h_in + r * down) * problem.w_in + s * right).to(torch.int32),
        reach=(((r * down) << REACH_BITS) | (s * right)).to(torch.int32),
        bounds=F.pad(counts.cumsum(0), (1, 0)).to(torch.int32),
        order=counts.argsort(descending=True, stable=True).to(torch.int32),
        bias=None if bias is None else bias.detach().float(),
        relu=relu,
        device_code=importlib.import_module(f"{__package__}.triton_direct_convolution"),
    )


def run_direct(packed: PackedDirect, x: Tensor, residual: Tensor | None = None) -> Tensor:
    """[N, C, H, W] to [N, K, H', W'], both contiguous.

    Raises
    ------
    InputError
        If `x` has another shape, dtype or device than what was packed, or `residual` is not like the output.
    UnsupportedError
        If Triton cannot compile or launch it on this device.
    """
    problem, device = packed.problem, packed.bounds.device
    check_tensor("input", x, problem.input_shape, torch.float32, device=device)
    if residual is not None:
        check_residual(residual, problem.output_shape, x.dtype, "nchw", device=device)
    y = empty_activation(problem.output_shape, x.dtype, "nchw", device=device)
    arguments = (
        x.contiguous(),
        packed.values,
        packed.starts,
        packed.reach,
        packed.bounds,
        packed.order,
        packed.bias,
        residual,
        y,
        _pixels(problem),
        problem.c_in,
        problem.h_in,
        problem.w_in,
        problem.h_out,
        problem.w_out,
        problem.c_out,
        *problem.stride,
        *problem.padding,
    )
    tile = tile_pixels(problem)
    fixed = constants(problem, relu=packed.relu, has_bias=packed.bias is not None, adds=residual is not None)
    launch = packed.device_code.direct_convolution[(math.ceil(_pixels(problem) / tile) * problem.c_out,)]
    try:
        launch(*arguments, **fixed, num_warps=warps_of(tile))
    except packed.device_code.FAILURE as failure:
        raise UnsupportedError(
            f"Triton cannot run {problem} on this GPU ({failure}); plan again without its pattern"
        ) from failure
    return y


def constants(problem: Problem, *, relu: bool, has_bias: bool, adds: bool) -> dict[str, Any]:
    """What the device code is compiled for."""
    return {
        "HAS_BIAS": has_bias,
        "HAS_RESIDUAL": adds,
        "RELU": relu,
        "PADDED": problem.padding != (0, 0),
        "PIXELS": tile_pixels(problem),
        "UNROLL": UNROLL,
    }


def tile_pixels(problem: Problem) -> int:
    """Output pixels of a tile, a power of two."""
    count = _pixels(problem)
    pixels = min(max(1 << (count - 1).bit_length(), LEAST_PIXELS), MOST_PIXELS)
    while pixels > 2 * LEAST_PIXELS and math.ceil(count / pixels) * problem.c_out < FEW_TILES:
        pixels //= 2
    return pixels


def warps_of(pixels: int) -> int:
    """Warps that share a tile."""
    return max(1, pixels // PIXELS_OF_A_WARP)


def direct_cost(problem: Problem) -> Cost:
    """Work of one run: each multiply-add loads its input value."""
    tile = tile_pixels(problem)
    tiles = math.ceil(_pixels(problem) / tile) * problem.c_out
    weights = (1.0 - problem.sparsity) * problem.weight_count
    executed = math.ceil(_pixels(problem) / tile) * tile * weights
    return Cost(
        unit="gpu_f32",
        flop=2.0 * executed,
        bytes_streamed=4.0 * executed + SLOT_BYTES * weights * tiles / problem.c_out + problem.output_bytes,
        bytes_moved=problem.input_bytes + problem.output_bytes + SLOT_BYTES * weights,
        tasks=tiles,
        starts=float(tiles),
    )


def why_direct_unsupported(problem: Problem, machine: Machine) -> str | None:
    """The reason why it cannot run a problem, or does not skip anything of it, or None."""
    if (problem.op, problem.dtype) != ("conv2d", "float32"):
        return f"runs conv2d in float32, not {problem.op} in {problem.dtype}"
    if reason := why_no_cuda(machine) or why_no_triton(machine):
        return reason
    pattern = parse_pattern(problem.pattern)
    if "unstructured" not in pattern.kinds or pattern.slots > 1:
        return f"skips single weights; the pattern is {problem.pattern!r}"
    reach = max((taps - 1) * dilation for taps, dilation in zip(problem.kernel, problem.dilation, strict=True))
    most = max(math.prod(problem.input_shape), math.prod(problem.output_shape), problem.weight_count)
    if reach >= 1 << (REACH_BITS - 1) or most >= 2**31:
        return f"offsets are 32 bits: at most 2^31 values and a reach of 2^{REACH_BITS - 1} pixels"
    return None


def _pixels(problem: Problem) -> int:
    return problem.n * problem.h_out * problem.w_out


KERNELS: tuple[KernelSpec, ...] = (
    KernelSpec(
        name="conv2d_unstructured_f32_nchw__triton",
        op="conv2d",
        patterns=("unstructured",),
        dtype="float32",
        isa=TRITON,
        layout="nchw",
        pack=pack_direct,
        run=run_direct,
        cost=direct_cost,
        why_unsupported=why_direct_unsupported,
        device="cuda",
    ),
)
