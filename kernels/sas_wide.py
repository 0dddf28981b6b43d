"""SAS layers as dense ones: the input is expanded to all its slots and a dense kernel multiplies the zeros too.

A dense layer does not mind the order of its channels, so the slots lie outermost, each a run of consecutive channels,
and the expansion is one pass of long writes.

The other dense form of 1:2, ``A x + B |x|`` with A = (W+ - W-) / 2 and B = (W+ + W-) / 2, reads x where it lies, but
multiplies as much and is not here: as two calls of the dense bfloat16 kernel, the second adding to the first, it took
1.00 to 1.16 times as long as this form on ResNet-50's layers at batch 1 and 16 (Zen 5). Against weights in float32 its
error is the same there (both 0.0016 to 0.0021), but of a layer with few inputs, where A x and B |x| cancel, the
rounding of A and B to bfloat16 stays: 0.029 against 0.0036. Split into two bfloat16 each, they would double the work.

Which form is fastest (Zen 5, one thread, ResNet-50's 3x3 and 1x1 layers and BERT's linears of 128 tokens, geometric
means): in float32 always `sas_select`, 1.26 to 1.41 times the speed of the doubled dense layer at 1:2 and 1.95 to 2.18
times at 1:4, at batch 1 and 16. In bfloat16 this form runs at 0.87 to 0.97 of the dense layer over all slots, 1.39 to
1.55 times as fast as `sas_select` in float32 at 1:2, but 0.90 to 0.99 times at 1:4. For a single token the time is that
of reading weights, and choosing rows in float32 is fastest: 3.2 and 5.8 times the dense layer, 1.3 and 2.2 times this
form in bfloat16. Choosing rows for pairs of channels in bfloat16 would read as much for each pair as 1:4 in float32
does for each channel: at 1:2 no faster than this form, but for a single token.

References
----------
Sekikawa and Yashima, SAS: Structured Activation Sparsification, ICLR 2024, section 3.
"""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from . import _native, dense
from .check import check_tensor, check_weight_shapes
from .layout import memory_format
from .pattern import SasPart, parse_pattern
from .problem import DTYPE_BYTES, Problem
from .sas import expand_slots, why_slots_undefined, wide_problem
from .spec import Cost, KernelSpec, Machine


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedWide:
    """A dense layer over all slots, and what feeds it.

    Attributes
    ----------
    wide_shape : tuple of int
        Of the wide tensor, channels last.
    inner : Any
        The weights as the dense kernel packs them.
    expansion : SasExpansion or None
        None where torch itself expands.
    """

    problem: Problem
    wide_shape: tuple[int, ...]
    inner: Any
    expansion: _native.SasExpansion | None


def slots_outermost(weight: Tensor, problem: Problem) -> Tensor:
    """The wide weight [K, C * m, R, S] with its channels in the order [m, C]."""
    m = parse_pattern(problem.pattern).slots
    return weight.unflatten(1, (-1, m)).transpose(1, 2).flatten(1, 2)


def pack_wide(problem: Problem, weight: Tensor, bias: Tensor | None, relu: bool, *, inner: KernelSpec) -> PackedWide:
    """Order the weight as the expansion orders the channels, and pack it for the dense kernel `inner`.

    Raises
    ------
    InputError
        If the weight has another shape than the problem.
    """
    weight = weight.detach()
    check_weight_shapes(problem, weight, bias)
    expansion = None
    if not inner.name.endswith("__torch"):
        weight = slots_outermost(weight, problem)
        expansion = _native.SasExpansion(
            pixels=problem.n * problem.h_in * problem.w_in,
            groups=problem.groups,
            channels=problem.c_in // problem.groups,
            bits=parse_pattern(problem.pattern).slots.bit_length() - 1,
            value_bytes=DTYPE_BYTES[problem.dtype],
        )
    wide = wide_problem(problem)
    n, channels, *spatial = wide.input_shape
    return PackedWide(
        problem=problem,
        wide_shape=(n, *spatial, channels),
        inner=inner.pack(wide, weight, bias, relu),
        expansion=expansion,
    )


def run_wide(packed: PackedWide, x: Tensor, residual: Tensor | None = None, *, inner: KernelSpec) -> Tensor:
    """[N, C, H, W] to [N, K, H', W'], both channels_last, or [N, C] to [N, K].

    Raises
    ------
    InputError
        If `x` has another shape or dtype than the problem, or `residual` is not like the output.
    """
    return inner.run(packed.inner, _expand(packed, x), residual)


def _expand(packed: PackedWide, x: Tensor) -> Tensor:
    """The wide tensor, in memory that this thread uses again in the next call."""
    problem = packed.problem
    check_tensor("input", x, problem.input_shape, dense.TORCH_DTYPES[problem.dtype])
    order = memory_format(x.dim(), "nhwc")
    if packed.expansion is None:
        m = parse_pattern(problem.pattern).slots
        return expand_slots(x, m, groups=problem.groups).contiguous(memory_format=order)
    x = x.contiguous(memory_format=order)
    address = packed.expansion.run(x.data_ptr(), x.nbytes, torch.get_num_threads())
    memory = (ctypes.c_byte * (math.prod(packed.wide_shape) * x.element_size())).from_address(address)
    wide = torch.frombuffer(memory, dtype=x.dtype).view(packed.wide_shape)
    return wide.permute(0, 3, 1, 2) if x.dim() == 4 else wide


def wide_cost(problem: Problem, *, inner: KernelSpec) -> Cost:
    """The dense layer over all slots, and the expansion, which reads the narrow tensor and writes the wide one."""
    wide = wide_problem(problem)
    cost = inner.cost(wide)
    return replace(cost, bytes_copied=cost.bytes_copied + problem.input_bytes + wide.input_bytes)


def why_wide_unsupported(problem: Problem, machine: Machine, *, inner: KernelSpec) -> str | None:
    """Whatever keeps `inner` from running the wide layer, and patterns other than one `sas:1:m`."""
    parts = parse_pattern(problem.pattern).parts
    if len(parts) != 1 or not isinstance(parts[0], SasPart):
        return f"needs a pattern sas:1:m alone, not {problem.pattern!r}"
    return why_slots_undefined(parts[0]) or inner.why_unsupported(wide_problem(problem), machine)


def _spec(inner: KernelSpec) -> KernelSpec:
    dtype = dense.SHORT_DTYPES[inner.dtype]
    layout = "_nhwc" if inner.op == "conv2d" else ""
    return KernelSpec(
        name=f"{inner.op}_sas_{dtype}_wide{layout}__{inner.name.split('__')[1]}",
        op=inner.op,
        patterns=("sas",),
        dtype=inner.dtype,
        isa=inner.isa,
        layout=inner.layout,
        pack=partial(pack_wide, inner=inner),
        run=partial(run_wide, inner=inner),
        cost=partial(wide_cost, inner=inner),
        why_unsupported=partial(why_wide_unsupported, inner=inner),
    )


_DENSE = {kernel.name: kernel for kernel in dense.KERNELS}

KERNELS: tuple[KernelSpec, ...] = (
    _spec(_DENSE["conv2d_dense_f32_nhwc__onednn"]),
    _spec(_DENSE["linear_dense_f32_nchw__onednn"]),
    _spec(_DENSE["conv2d_dense_f32_nhwc__torch"]),
    _spec(_DENSE["linear_dense_f32_nchw__torch"]),
    _spec(_DENSE["conv2d_dense_bf16_nhwc__onednn"]),
    _spec(_DENSE["linear_dense_bf16_nchw__onednn"]),
)
