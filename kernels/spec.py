"""What a kernel is: its name, what it can skip, how to pack and run it, and what it costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from .problem import Dtype, Op, Problem

if TYPE_CHECKING:
    from torch import Tensor

CpuUnit = Literal["fma_f32", "fma_f16", "dot_bf16", "dot_int8", "tile_bf16", "tile_int8"]
"""Multiply-add, dot product of pairs or quads, or AMX tile product."""

GpuUnit = Literal[
    "gpu_f32",
    "gpu_tf32",
    "gpu_tf32x3",
    "gpu_f16",
    "gpu_bf16",
    "gpu_fp8",
    "gpu_int8",
    "gpu_f16_2:4",
    "gpu_bf16_2:4",
]
"""Multiply-add in float32; else products of the matrix units: of three TF32 parts in place of one float32, and of 2:4
sparse weights, counted as dense work."""

Unit = Literal[CpuUnit, GpuUnit]
"""Execution unit that bounds the arithmetic."""

Device = Literal["cpu", "cuda"]

NetworkLayout = Literal["nchw", "nhwc"]
"""Memory order of activations between the layers of a network: torch's contiguous or channels_last."""

Layout = Literal["nchw", "nhwc", "n16chw", "n8chw", "n4chw"]
"""Memory order of the activations that a kernel takes and gives: a network's, or a contiguous tensor
[ceil(N / 16), C, H, W, 16] (8, 4) of interleaved images; see `layout.activation_shape`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Counts of work of one run, from shapes alone; the performance model turns them into time.

    Attributes
    ----------
    unit : Unit
        Execution unit of the arithmetic.
    flop : float
        Executed floating-point operations, padding to tiles and tails included.
    bytes_streamed : float
        Bytes that the inner loops load or store, counted at the level closest to the registers.
    bytes_moved : float
        Compulsory bytes: input and output once, packed weights once.
    tasks : int
        Independent pieces of work that threads share.
    bytes_copied : float
        Of copies that the kernel makes before or after its inner loops, in whole vectors (each read and write counts).
    values_dealt : float
        Values that such copies move one by one or transpose: strided inputs, changes of layout.
    starts : float
        Times that an inner loop starts over (a tile of sums, a row of non-zeros): what does not shrink with the zeros.
    """

    unit: Unit
    flop: float
    bytes_streamed: float
    bytes_moved: float
    tasks: int
    bytes_copied: float = 0.0
    values_dealt: float = 0.0
    starts: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What decides which kernels may run: instruction sets the CPU *and* the operating system allow.

    Of a GPU `isa` names the architectures whose code it runs, oldest first (``sm_80``), then ``triton`` where it is
    installed.
    """

    isa: tuple[str, ...]
    torch_ops: tuple[str, ...] = ()
    device: Device = "cpu"


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelSpec:
    """A kernel of the registry.

    Attributes
    ----------
    name : str
        ``{op}_{what it skips}_{dtype}_{layout or method}__{isa or library}``.
    patterns : tuple of str
        Kinds of pattern parts that this kernel can skip ("dense" alone for a dense kernel).
    isa : str
        Instruction set that it needs; "any" for library kernels.
    layout : Layout
        Memory order of input, residual and output.
    pack : callable
        ``pack(problem, weight, bias, relu) -> packed``: once. `weight` is a dense float32 tensor [K, C, R, S] that
        contains zeros where the pattern of the problem puts them, `bias` is [K] or None. int8 kernels take a fifth
        argument, the `Quantisation` of input and output.
    run : callable
        ``run(packed, x, residual=None) -> y``: many times. `x` is [N, C, H, W] in `layout`, or [N, C] for a linear,
        of `dtype`; `residual` is like `y`, its memory order included, and is added before the ReLU.
    cost : callable
        ``cost(problem) -> Cost``.
    why_unsupported : callable
        ``why_unsupported(problem, machine) -> str | None``: the reason, or None where the kernel is eligible.
    in_a_row : callable or None
        ``in_a_row(problem) -> ((problem, kernel name), ...)`` of a kernel that runs others one after the other: where
        it was not measured itself, its time is predicted as their sum.
    device : Device
        Where it runs. What is packed for a GPU lies where the weight lay, and input and residual must lie there too.
    """

    name: str
    op: Op
    patterns: tuple[str, ...]
    dtype: Dtype
    isa: str
    layout: Layout
    pack: Callable[..., Any]
    run: Callable[..., Tensor]
    cost: Callable[[Problem], Cost]
    why_unsupported: Callable[[Problem, Machine], str | None]
    in_a_row: Callable[[Problem], tuple[tuple[Problem, str], ...]] | None = None
    device: Device = "cpu"
