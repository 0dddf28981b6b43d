"""A problem: one layer's work, the unit that kernels run and the model predicts."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from pydantic import ConfigDict

from .errors import InputError
from .pattern import parse_pattern

Op = Literal["conv2d", "linear"]
Dtype = Literal["float32", "bfloat16", "float16", "int8"]
"""Of activations and weights; int8 means unsigned 8-bit activations with a zero point, and signed 8-bit weights."""

DTYPE_BYTES: dict[str, int] = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One convolution or matrix product, with the sparsity of its weights.

    A linear layer is a 1x1 convolution over an image of 1x1. `sparsity` is the share of weights that are zero; for
    N:M patterns it must equal 1 - n/m, and combined with other parts it is at least that. Under a SAS pattern `c_in` is
    the width of the narrow pre-activation, the weight has m times as many channels (see `sas`), and `sparsity` is the
    share of products that are zero, 1 - n/m. `weights` names a file with
    the real weights (`.mtx` of [c_out, c_in/groups*R*S], or `.npy`), or is None for random ones.

    Raises
    ------
    InputError
        If a size is not positive, an axis does not fit, or a value is outside its range.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    op: Op
    n: int
    c_in: int
    c_out: int
    h_in: int = 1
    w_in: int = 1
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    dtype: Dtype = "float32"
    pattern: str = "dense"
    sparsity: float = 0.0
    weights: str | None = field(default=None)
    threads: int = 1

    def __post_init__(self) -> None:
        _require(self.op in get_args(Op), "op", self.op, " or ".join(get_args(Op)))
        _require(self.dtype in get_args(Dtype), "dtype", self.dtype, " or ".join(get_args(Dtype)))
        for name in ("kernel", "stride", "padding", "dilation"):
            _require(len(getattr(self, name)) == 2, name, getattr(self, name), "two numbers")
        for name in ("n", "c_in", "c_out", "h_in", "w_in", "groups", "threads"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        for name in ("kernel", "stride", "dilation"):
            _require(min(getattr(self, name)) >= 1, name, getattr(self, name), "two numbers of at least 1")
        _require(min(self.padding) >= 0, "padding", self.padding, "two numbers of at least 0")
        _require(self.c_in % self.groups == 0, "groups", self.groups, f"a divisor of c_in={self.c_in}")
        _require(self.c_out % self.groups == 0, "groups", self.groups, f"a divisor of c_out={self.c_out}")
        _require(0.0 <= self.sparsity <= 1.0, "sparsity", self.sparsity, "a number in [0, 1]")
        if self.op == "linear":
            spatial = (self.h_in, self.w_in, *self.kernel, *self.stride, *self.dilation, self.groups)
            _require(set(spatial) == {1} and self.padding == (0, 0), "op", self.op, "no spatial sizes for a linear")
        _require(min(self.h_out, self.w_out) >= 1, "h_in, w_in", (self.h_in, self.w_in), "large enough for the kernel")
        pattern = parse_pattern(self.pattern)
        if pattern.is_dense:
            _require(self.sparsity == 0.0, "sparsity", self.sparsity, "0 for pattern 'dense'")
        least, fixed = pattern.least_sparsity, pattern.fixed_sparsity
        _require(self.sparsity >= least - 1e-9, "sparsity", self.sparsity, f"at least {least:g} for {self.pattern!r}")
        if fixed is not None:
            _require(math.isclose(self.sparsity, fixed), "sparsity", self.sparsity, f"{fixed:g} for {self.pattern!r}")

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        """[K, C, R, S] with C the input channels per group, times m under a SAS pattern."""
        return self.c_out, self.c_in // self.groups * parse_pattern(self.pattern).slots, *self.kernel

    @property
    def h_out(self) -> int:
        return _out_size(self.h_in, self.kernel[0], self.stride[0], self.padding[0], self.dilation[0])

    @property
    def w_out(self) -> int:
        return _out_size(self.w_in, self.kernel[1], self.stride[1], self.padding[1], self.dilation[1])

    @property
    def input_shape(self) -> tuple[int, ...]:
        """[N, C, H, W], or [N, C] for a linear."""
        return (self.n, self.c_in, self.h_in, self.w_in) if self.op == "conv2d" else (self.n, self.c_in)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """[N, K, H', W'], or [N, K] for a linear."""
        return (self.n, self.c_out, self.h_out, self.w_out) if self.op == "conv2d" else (self.n, self.c_out)

    @property
    def weight_count(self) -> int:
        return math.prod(self.weight_shape)

    @property
    def flop_dense_equiv(self) -> float:
        """Work of the dense layer, under a SAS pattern the wide one; one multiply-add is 2 flop."""
        return 2.0 * self.n * self.h_out * self.w_out * self.weight_count

    @property
    def flop_useful(self) -> float:
        """Work on weights and activations that are not zero."""
        return self.flop_dense_equiv * (1.0 - self.sparsity)

    @property
    def input_bytes(self) -> float:
        return float(math.prod(self.input_shape) * DTYPE_BYTES[self.dtype])

    @property
    def output_bytes(self) -> float:
        return float(math.prod(self.output_shape) * DTYPE_BYTES[self.dtype])

    @property
    def weight_bytes(self) -> float:
        """Of the dense weight."""
        return float(self.weight_count * DTYPE_BYTES[self.dtype])

    def with_sparsity(self, pattern: str, sparsity: float) -> Problem:
        """The same layer under another pattern; N:M and SAS patterns dictate their sparsity."""
        least, fixed = parse_pattern(pattern).least_sparsity, parse_pattern(pattern).fixed_sparsity
        return replace(self, pattern=pattern, sparsity=max(sparsity, least) if fixed is None else fixed, weights=None)

    def as_dense(self) -> Problem:
        return replace(self, pattern="dense", sparsity=0.0, weights=None)


def _out_size(size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


def _require(holds: bool, name: str, seen: object, allowed: str) -> None:
    if not holds:
        raise InputError(f"problem field {name}: got {seen!r}, allowed is {allowed}")
