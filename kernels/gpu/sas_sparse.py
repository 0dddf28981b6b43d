"""SAS 1:2 on a GPU as a product whose left operand, the activations, is 2:4 sparse: no zero is multiplied.

Of the two wide channels of an input channel its sign chooses one, so of any four neighbouring ones two hold a value:
the input as it lies in memory *is* the compressed operand of the matrix units, and its sign bits are the places. The
product makes these in its registers, from values that it has loaded anyway: nothing is packed, by no pass and by no
epilogue of the layer before, and the input stays half as wide as the weights.

Two forms of one source: ``mma.sp`` of a warp, for compute capability 8.0 and newer, and ``wgmma.sp`` of a warpgroup,
for 9.0 alone, where the former reaches only a part of the units' rate. NVRTC compiles it when a layer is packed.

References
----------
Sekikawa and Yashima, SAS: Structured Activation Sparsification, ICLR 2024, section 3.
NVIDIA, Parallel Thread Execution ISA: mma.sp and wgmma.mma_async.sp (fragments, metadata, descriptors).
Luo et al., Dissecting the NVIDIA Hopper architecture through microbenchmarking, arXiv:2501.12084 (rates of both).
"""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass
from functools import cache, partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..check import check_tensor, check_weight_shapes
from ..dense import SHORT_DTYPES, TORCH_DTYPES
from ..layout import check_residual, empty_activation, memory_format
from ..pattern import parse_pattern
from ..problem import DTYPE_BYTES, Dtype, Op, Problem
from ..spec import Cost, KernelSpec, Layout, Machine
from .driver import Program, load_program
from .eligibility import why_not_here
from .machine import HOPPER_ALONE
from .nvrtc import compile_cuda
from .semi_structured import UNITS

Form = Literal["mma_sp", "wgmma_sp"]
SOURCES = ("matrix_units.cuh", "sas_product.cu")
SLOTS = 2
THREADS = 256
OUTPUTS = 128
"""Output channels of a tile."""
DEPTH = 32
"""Input channels of a step."""
CHUNK, CHUNK_BYTES = 8, 16
"""Elements and bytes in which everything moves."""
GROUP = 64
"""Output channels of which a thread holds a quarter, as neighbours."""
ROWS: dict[Form, tuple[int, ...]] = {"mma_sp": (256, 128, 64), "wgmma_sp": (256, 128)}
"""Pixels of a tile: as many as give each multiprocessor one."""
FEW_TILES = 132
"""Multiprocessors of the largest GPUs in use."""
SHARED_BYTES = {80: 163 << 10, 86: 99 << 10, 89: 99 << 10, 90: 227 << 10, 100: 227 << 10, 120: 99 << 10}
"""Of a multiprocessor, for one block of threads (CUDA C++ programming guide, technical specifications)."""
RESERVED_BYTES = 1 << 10
"""Of them, for each block."""
BUFFERS = (3, 6)
"""Steps in shared memory: what the program needs at least, and what hides the wait for the L2 cache."""


FIELDS = (
    *("pixels", "c_in", "h_in", "w_in", "h_out", "w_out", "k_out"),
    *("taps_h", "taps_w", "stride_h", "stride_w", "pad_h", "pad_w", "dilation_h", "dilation_w", "relu"),
)


class Layer(ctypes.Structure):
    """What the program is told of a layer, in the order of `Layer` in its source."""

    _fields_ = tuple((name, ctypes.c_int) for name in FIELDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedSparse:
    """Weights ready to run, for exactly one problem.

    Attributes
    ----------
    weights : Tensor
        [tiles of output channels, steps, 128, 8, 8], as each step lies in shared memory.
    blocks : int
        Tiles of the output.
    """

    problem: Problem
    weights: Tensor
    bias: Tensor | None
    relu: bool
    layout: Layout
    blocks: int
    program: Program


def rows_of(problem: Problem, form: Form) -> int:
    """Pixels of a tile."""
    tiles_k = math.ceil(problem.c_out / OUTPUTS)
    fitting = (rows for rows in ROWS[form] if math.ceil(_pixels(problem) / rows) * tiles_k >= FEW_TILES)
    return next(fitting, ROWS[form][-1])


def buffers_of(rows: int, architecture: int) -> int:
    """Steps that shared memory holds, beside those of a second block where registers allow one."""
    blocks = 1 if rows == max(ROWS["mma_sp"]) else 2
    known = max(each for each in SHARED_BYTES if each <= architecture)
    fitting = (SHARED_BYTES[known] // blocks - RESERVED_BYTES * (blocks - 1)) // step_bytes(rows)
    return min(max(fitting, BUFFERS[0]), BUFFERS[1])


def step_bytes(rows: int) -> int:
    """Shared memory of a step: 32 channels of the pixels and their wide ones of the output channels."""
    return (rows + OUTPUTS * SLOTS) * DEPTH * 2


def defines(rows: int, dtype: Dtype, form: Form, architecture: int) -> dict[str, object]:
    """What the source is compiled for."""
    return {
        "WARPGROUPS": int(form == "wgmma_sp"),
        "ROWS": rows,
        "BUFFERS": buffers_of(rows, architecture),
        "ELEMENT": SHORT_DTYPES[dtype],
    }


@cache
def program_for(rows: int, dtype: Dtype, form: Form, capability: tuple[int, int], device: torch.device) -> Program:
    """Compile for a GPU's compute capability and load; once in a process.

    Raises
    ------
    UnsupportedError
        If NVRTC or the driver refuses.
    """
    architecture = capability[0] * 10 + capability[1]
    taken = defines(rows, dtype, form, architecture)
    name = f"{architecture}a" if form == "wgmma_sp" else str(architecture)
    code = compile_cuda(SOURCES, defines=taken, architecture=name)
    with torch.cuda.device(device):
        return load_program(
            code, "sas_product", threads=THREADS, shared_bytes=buffers_of(rows, architecture) * step_bytes(rows)
        )


def pack_sparse(
    problem: Problem, weight: Tensor, bias: Tensor | None, relu: bool, *, layout: Layout, form: Form
) -> PackedSparse:
    """Order the wide weight [K, 2 C, R, S] as its steps lie in shared memory, on its own device, and compile.

    Raises
    ------
    InputError
        If the weight or the bias does not have the shape of the problem.
    UnsupportedError
        If the program cannot be compiled or loaded.
    """
    check_weight_shapes(problem, weight, bias)
    rows = rows_of(problem, form)
    capability = torch.cuda.get_device_capability(weight.device)
    return PackedSparse(
        problem=problem,
        weights=pack_columns(weight.detach().to(TORCH_DTYPES[problem.dtype])),
        bias=None if bias is None else bias.detach().float().contiguous(),
        relu=relu,
        layout=layout,
        blocks=math.ceil(_pixels(problem) / rows) * math.ceil(problem.c_out / OUTPUTS),
        program=program_for(rows, problem.dtype, form, capability, weight.device),
    )


def pack_columns(weight: Tensor) -> Tensor:
    """The wide weight [K, 2 C, R, S] as [tiles, steps, 128, 8, 8]: chunks of the channels of a step, swizzled.

    The columns of odd slots are negated, for the program multiplies x, not its absolute value. Output channels are
    ordered so that the sums that one thread holds of each 64 are neighbours: column ``8 j + 2 t + i`` of a product is
    channel ``16 t + 2 j + i``. Chunk c of row k lies at ``c ^ k % 8``: the swizzle of 128 bytes.
    """
    k, wide, *taps = weight.shape
    signed = (
        weight.unflatten(1, (-1, SLOTS))
        * torch.tensor([1.0, -1.0], device=weight.device, dtype=weight.dtype)[None, None, :, None, None]
    )
    # [K, R, S, C, slot], so that the channels of a step are neighbours.
    last = signed.permute(0, 3, 4, 1, 2)
    padded = F.pad(last, (0, 0, 0, -(wide // SLOTS) % DEPTH, 0, 0, 0, 0, 0, -k % OUTPUTS))
    channels = torch.arange(GROUP, device=weight.device).reshape(4, GROUP // 8, 2).transpose(0, 1).flatten()
    tiles = padded.reshape(-1, GROUP, math.prod(taps), padded.shape[3] // DEPTH, SLOTS * DEPTH)[:, channels]
    steps = tiles.reshape(-1, OUTPUTS, math.prod(taps) * (padded.shape[3] // DEPTH), CHUNK, CHUNK).transpose(1, 2)
    row, chunk = torch.arange(OUTPUTS, device=weight.device)[:, None], torch.arange(CHUNK, device=weight.device)
    return steps[:, :, row, chunk ^ (row % 8)].contiguous()


def run_sparse(packed: PackedSparse, x: Tensor, residual: Tensor | None = None) -> Tensor:
    """[N, C, H, W] to [N, K, H', W'], both channels_last, or [N, C] to [N, K].

    Raises
    ------
    InputError
        If `x` has another shape, dtype or device than what was packed, or `residual` is not like the output.
    UnsupportedError
        If the driver refuses to launch the program.
    """
    problem, dtype, device = packed.problem, TORCH_DTYPES[packed.problem.dtype], packed.weights.device
    check_tensor("input", x, problem.input_shape, dtype, device=device)
    if residual is not None:
        check_residual(residual, problem.output_shape, dtype, packed.layout, device=device)
    x = _at_whole_chunks(x.contiguous(memory_format=memory_format(x.dim(), packed.layout)))
    residual = None if residual is None else _at_whole_chunks(residual)
    y = empty_activation(problem.output_shape, dtype, packed.layout, device=device)
    packed.program.launch(packed.blocks, (x, packed.weights, packed.bias, residual, y), layer_of(problem, packed.relu))
    return y


def _at_whole_chunks(tensor: Tensor) -> Tensor:
    """A copy where a tensor, as a part of another one, starts between 16 bytes, in which the program reads."""
    return tensor if tensor.data_ptr() % CHUNK_BYTES == 0 else tensor.clone(memory_format=torch.preserve_format)


def layer_of(problem: Problem, relu: bool) -> Layer:
    """What the program is told of a problem."""
    inner = (problem.c_in, problem.h_in, problem.w_in, problem.h_out, problem.w_out, problem.c_out)
    window = (*problem.kernel, *problem.stride, *problem.padding, *problem.dilation)
    return Layer(_pixels(problem), *inner, *window, int(relu))


def sparse_cost(problem: Problem, *, form: Form) -> Cost:
    """Work of the tiles, counted as that of the dense layer over all slots; every step comes through the L2 cache."""
    rows = rows_of(problem, form)
    tiles = math.ceil(_pixels(problem) / rows) * math.ceil(problem.c_out / OUTPUTS)
    steps = math.prod(problem.kernel) * math.ceil(problem.c_in / DEPTH)
    columns = math.ceil(problem.c_out / OUTPUTS) * OUTPUTS * steps * DEPTH * SLOTS
    return Cost(
        unit=UNITS[problem.dtype],
        flop=2.0 * tiles * rows * OUTPUTS * steps * DEPTH * SLOTS,
        bytes_streamed=float(tiles * steps * step_bytes(rows)) + problem.output_bytes,
        bytes_moved=problem.input_bytes + problem.output_bytes + float(columns * DTYPE_BYTES[problem.dtype]),
        tasks=tiles,
        starts=float(tiles),
    )


def why_sparse_unsupported(problem: Problem, machine: Machine, *, op: Op, dtype: Dtype, form: Form) -> str | None:
    """The reason why the program cannot run a problem, or None."""
    if reason := why_not_here(problem, machine, op=op, dtype=dtype):
        return reason
    if _isa(form) not in machine.isa:
        return f"needs {_isa(form)}, this machine allows {', '.join(machine.isa) or 'no architecture known here'}"
    pattern = parse_pattern(problem.pattern)
    if pattern.kinds != ("sas",) or pattern.slots != SLOTS:
        return f"places activations by their own sign, as sas:1:2 alone does; the pattern is {problem.pattern!r}"
    if problem.groups > 1:
        return f"multiplies all channels at once, not {problem.groups} groups"
    if problem.c_in % CHUNK or problem.c_out % CHUNK:
        return f"moves {CHUNK} channels at once; the layer has {problem.c_in} inputs and {problem.c_out} outputs"
    most = max(math.prod(problem.input_shape), math.prod(problem.output_shape), problem.weight_count)
    if most >= 2**31:
        return "offsets are 32 bits: at most 2^31 values"
    return None


def _isa(form: Form) -> str:
    return HOPPER_ALONE if form == "wgmma_sp" else "sm_80"


def _pixels(problem: Problem) -> int:
    return problem.n * problem.h_out * problem.w_out


def _kernel(op: Op, dtype: Dtype, form: Form) -> KernelSpec:
    layout: Layout = "nhwc" if op == "conv2d" else "nchw"
    return KernelSpec(
        name=f"{op}_sas_{SHORT_DTYPES[dtype]}_sparse_{layout}__{form}",
        op=op,
        patterns=("sas",),
        dtype=dtype,
        isa=_isa(form),
        layout=layout,
        pack=partial(pack_sparse, layout=layout, form=form),
        run=run_sparse,
        cost=partial(sparse_cost, form=form),
        why_unsupported=partial(why_sparse_unsupported, op=op, dtype=dtype, form=form),
        device="cuda",
    )


_OPS: tuple[Op, ...] = ("conv2d", "linear")
_DTYPES: tuple[Dtype, ...] = ("bfloat16", "float16")
_FORMS: tuple[Form, ...] = ("wgmma_sp", "mma_sp")
KERNELS: tuple[KernelSpec, ...] = tuple(_kernel(op, dtype, form) for op in _OPS for dtype in _DTYPES for form in _FORMS)
