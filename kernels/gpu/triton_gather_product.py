"""Device code: a strip of output channels times the columns that it keeps, gathered from channels-last activations.

Imported when a kernel packs its first weight: Triton is an optional dependency, and loading it takes half a second.
Under ``TRITON_INTERPRET=1``, set before Python starts, the same code runs in numpy on CPU tensors.
"""

from __future__ import annotations

import triton
import triton.language as tl
from triton.errors import TritonError

from .triton_window import window_of

FAILURE: type[Exception] = TritonError
"""Of compiling for, or launching on, a device that has too little for a tile; no RuntimeError, as torch's are."""

IS_INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)
"""The interpreter keeps bfloat16 as bits and would multiply these; as float32 they are the same numbers."""


UNSPECIALISED = (
    "pixels",
    "strips",
    "h_in",
    "w_in",
    "h_out",
    "w_out",
    "strips_per_group",
    "stride_h",
    "stride_w",
    "pad_h",
    "pad_w",
)
"""Whether these are 1, or multiples of 16, changes no load or store: without this every layer compiles anew."""


@triton.jit(do_not_specialize=UNSPECIALISED)
def gather_product(
    x,
    values,
    starts,
    reach,
    bounds,
    order,
    bias,
    residual,
    y,
    pixels,
    strips,
    c_in,
    h_in,
    w_in,
    h_out,
    w_out,
    k_out,
    k_group,
    strips_per_group,
    stride_h,
    stride_w,
    pad_h,
    pad_w,
    turned_stride,
    HAS_BIAS: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    RELU: tl.constexpr,
    PADDED: tl.constexpr,
    TURNED: tl.constexpr,
    PIXELS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    DEPTH: tl.constexpr,
    RUN: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One tile of PIXELS x OUTPUTS; program ``p`` takes the strip ``order[p % strips]`` of the pixels ``p // strips``.

    Neighbouring programs share their pixels, so that these come from the L2 cache after the first. TURNED is for
    linears whose ``x`` is [channels, turned_stride], in whole tiles.
    """
    program = tl.program_id(0)
    strip = tl.load(order + program % strips)
    first = tl.load(bounds + strip)
    last = tl.load(bounds + strip + 1)

    m = (program // strips) * PIXELS + tl.arange(0, PIXELS)
    is_pixel = m < pixels
    _, image, top, left = window_of(m, pixels, h_out, w_out, stride_h, stride_w, pad_h, pad_w)
    window = x + ((image * h_in + top) * w_in + left) * c_in

    d = tl.arange(0, DEPTH)
    n = tl.arange(0, OUTPUTS)
    weights = values + n[None, :] * DEPTH + d[:, None]
    sums = tl.zeros((PIXELS, OUTPUTS), dtype=tl.float32)
    for step in range(first, last):
        if TURNED:
            channel = tl.load(starts + step * DEPTH + d)
            places = x + channel[:, None] * turned_stride + m[None, :]
        elif RUN == DEPTH:
            start = tl.multiple_of(tl.load(starts + step), RUN)
            places = window[:, None] + (start + d)[None, :]
        else:
            slot = step * (DEPTH // RUN) + d // RUN
            # Each run starts at a multiple of its length: the compiler may load it as one vector.
            offset = tl.max_contiguous(tl.multiple_of(tl.load(starts + slot) + d % RUN, RUN), RUN)
            places = window[:, None] + offset[None, :]
        if PADDED:
            if RUN == DEPTH:
                distance = tl.load(reach + step)
                h = top + (distance >> 16)
                w = left + (distance & 0xFFFF)
                is_inside = ((h >= 0) & (h < h_in) & (w >= 0) & (w < w_in))[:, None]
            else:
                distance = tl.load(reach + slot)
                h = top[:, None] + (distance >> 16)[None, :]
                w = left[:, None] + (distance & 0xFFFF)[None, :]
                is_inside = (h >= 0) & (h < h_in) & (w >= 0) & (w < w_in)
            a = tl.load(places, mask=is_inside, other=0.0)
        else:
            a = tl.load(places)
        if TURNED:
            a = tl.trans(a)
        b = tl.load(weights + step * (OUTPUTS * DEPTH))
        if IS_INTERPRETED:
            a = a.to(tl.float32)
            b = b.to(tl.float32)
        sums = tl.dot(a, b, sums, input_precision=PRECISION)

    local = (strip % strips_per_group) * OUTPUTS + n
    output = (strip // strips_per_group) * k_group + local
    is_output = local < k_group
    stored = is_pixel[:, None] & is_output[None, :]
    place = m[:, None] * k_out + output[None, :]
    if HAS_BIAS:
        sums += tl.load(bias + output, mask=is_output, other=0.0)[None, :]
    if HAS_RESIDUAL:
        sums += tl.load(residual + place, mask=stored, other=0.0).to(tl.float32)
    if RELU:
        # NaN stays NaN, as in torch.
        sums = tl.where(sums < 0.0, 0.0, sums)
    tl.store(y + place, sums.to(y.dtype.element_ty), mask=stored)
