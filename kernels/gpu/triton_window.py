"""Device code: where the window of an output pixel lies in its image, the same in every implicit convolution."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def window_of(m, pixels, h_out, w_out, stride_h, stride_w, pad_h, pad_w):
    """(pixel, image, top, left) of output pixels ``m``, counted over all images; top and left may lie outside.

    Pixels beyond the last repeat it: their loads need no mask, and they must not be stored.
    """
    pixel = tl.minimum(m, pixels - 1)
    column = pixel % w_out
    row = (pixel // w_out) % h_out
    image = pixel // (w_out * h_out)
    return pixel, image, row * stride_h - pad_h, column * stride_w - pad_w
