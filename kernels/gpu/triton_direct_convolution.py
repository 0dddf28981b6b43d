"""Device code: one output channel as the sum of shifted input planes, one for each weight that is not zero.

Imported when a kernel packs its first weight, as `triton_gather_product` is.
"""

from __future__ import annotations

import triton
import triton.language as tl
from triton.errors import TritonError

from .triton_window import window_of

FAILURE: type[Exception] = TritonError
"""Of compiling for, or launching on, a device."""
UNSPECIALISED = (
    "pixels",
    "c_in",
    "h_in",
    "w_in",
    "h_out",
    "w_out",
    "k_out",
    "stride_h",
    "stride_w",
    "pad_h",
    "pad_w",
)
"""Planes are shifted by single pixels: no load could use that a size is a multiple of 16."""


@triton.jit(do_not_specialize=UNSPECIALISED)
def direct_convolution(
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
    c_in,
    h_in,
    w_in,
    h_out,
    w_out,
    k_out,
    stride_h,
    stride_w,
    pad_h,
    pad_w,
    HAS_BIAS: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    RELU: tl.constexpr,
    PADDED: tl.constexpr,
    PIXELS: tl.constexpr,
    UNROLL: tl.constexpr,
):
    """PIXELS of one output plane; program ``p`` takes the channel ``order[p % k_out]`` of the pixels ``p // k_out``.

    Neighbouring programs share their pixels, and with them the input planes in the caches.
    """
    program = tl.program_id(0)
    channel = tl.load(order + program % k_out)
    first = tl.load(bounds + channel)
    last = tl.load(bounds + channel + 1)

    m = (program // k_out) * PIXELS + tl.arange(0, PIXELS)
    is_pixel = m < pixels
    pixel, image, top, left = window_of(m, pixels, h_out, w_out, stride_h, stride_w, pad_h, pad_w)
    window = x + image * (c_in * h_in * w_in) + top * w_in + left

    sums = tl.zeros((PIXELS,), dtype=tl.float32)
    for slot in tl.range(first, last, loop_unroll_factor=UNROLL):
        place = window + tl.load(starts + slot)
        if PADDED:
            distance = tl.load(reach + slot)
            h = top + (distance >> 16)
            w = left + (distance & 0xFFFF)
            a = tl.load(place, mask=(h >= 0) & (h < h_in) & (w >= 0) & (w < w_in), other=0.0)
        else:
            a = tl.load(place)
        sums += a * tl.load(values + slot)

    place = (image * k_out + channel) * (h_out * w_out) + pixel % (h_out * w_out)
    if HAS_BIAS:
        sums += tl.load(bias + channel)
    if HAS_RESIDUAL:
        sums += tl.load(residual + place, mask=is_pixel, other=0.0)
    if RELU:
        # NaN stays NaN, as in torch.
        sums = tl.where(sums < 0.0, 0.0, sums)
    tl.store(y + place, sums, mask=is_pixel)
