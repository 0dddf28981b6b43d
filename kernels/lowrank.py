"""Low-rank layers: a weight of low rank is two or three thin dense layers in a row.

A linear layer, or a 1x1 convolution, splits by its singular values: C -> r -> K. Other convolutions split by Tucker-2:
the leading singular vectors of the weight unfolded along its input and its output channels: a 1x1 convolution
C -> r_in, the kernel itself r_in -> r_out, a 1x1 convolution r_out -> K.

The pattern is written ``lowrank`` with `sparsity` the share of the weights that is saved, not a rank: the same words
then mean the same saving in every layer, and levels, curves and break-even points work as for all other patterns.
What the rank is follows from the shape (`ranks_of`). As with the compacted layers, what is run is read from the weight
itself, so any weight gives its own result: one of full rank runs as the dense layer that it is. To bring a weight to
low rank (`low_rank`), and to weigh what that costs in accuracy, is not the kernel's business.

References
----------
De Lathauwer, De Moor, Vandewalle, A multilinear singular value decomposition, SIAM J. Matrix Anal. Appl. 21(4), 2000.
Kim et al., Compression of deep convolutional neural networks for fast and low power mobile applications, ICLR 2016
(arXiv 1511.06530): Tucker-2 of convolutions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from . import dense
from .pattern import LowRankPart, parse_pattern
from .problem import Dtype, Problem
from .spec import Cost, KernelSpec, Machine

KIND = "lowrank"
TOLERANCES: dict[Dtype, float] = {"float32": 1e-6, "bfloat16": 2.0**-8}
"""What of a weight may be missing from its factors, in Frobenius norms: some times what rounding a weight of low rank
to the dtype adds, and a fraction of the error limits of `reference`."""
MATRIX = (1, 1)

Packed = tuple[dense.PackedConv | dense.PackedLinear, ...]


def ranks_of(problem: Problem) -> tuple[int, int]:
    """(r_in, r_out) that save `problem.sparsity` of the weights or little more; see `ranks_for`."""
    return ranks_for(problem.weight_shape, problem.sparsity)


def ranks_for(weight_shape: tuple[int, ...], sparsity: float) -> tuple[int, int]:
    """(r_in, r_out) that save a share of the weights of [K, C, R, S] or little more; equal where the kernel is 1x1.

    The two ranks of a Tucker-2 are the same share of their channels.
    """
    k, c, *kernel = weight_shape
    count = math.prod(weight_shape)
    kept = (1.0 - sparsity) * count
    if tuple(kernel) == MATRIX:
        rank = max(1, min(int(kept / (k + c)), k, c))
        return rank, rank
    # share**2 * C K R S + share * (C**2 + K**2) = kept
    outer, inner = float(c * c + k * k), float(count)
    share = (math.sqrt(outer**2 + 4.0 * inner * kept) - outer) / (2.0 * inner)
    return max(1, min(int(share * c), c)), max(1, min(int(share * k), k))


def low_rank(weight: Tensor, ranks: tuple[int, int]) -> Tensor:
    """The weight [K, C, R, S] brought to (r_in, r_out): the best there is for 1x1, close to it for other kernels."""
    return low_ranks(weight, [ranks])[0]


def low_ranks(weight: Tensor, ranks: Sequence[tuple[int, int]]) -> list[Tensor]:
    """The same for several ranks, from one decomposition."""
    exact = weight.detach().double()
    bases = _bases(exact)
    return [multiply_factors(_factors(exact, bases, each)).to(weight.dtype) for each in ranks]


def factorise(weight: Tensor, ranks: tuple[int, int]) -> tuple[Tensor, ...]:
    """The weights [K, C, R, S] of the thin layers in a row, float64: two of a 1x1 kernel, three of another."""
    exact = weight.detach().double()
    return _factors(exact, _bases(exact), ranks)


def multiply_factors(factors: Sequence[Tensor]) -> Tensor:
    """The weight [K, C, R, S] of the one layer that thin layers in a row amount to."""
    first, last = factors[0].flatten(1), factors[-1]
    if len(factors) == 2:
        return torch.einsum("ki,ic->kc", last.flatten(1), first)[:, :, None, None]
    return torch.einsum("ko,oirs,ic->kcrs", last.flatten(1), factors[1], first)


def stages_of(problem: Problem, ranks: tuple[int, int]) -> tuple[Problem, ...]:
    """The dense layers in a row, or the one dense layer where they would have no fewer weights."""
    whole = problem.as_dense()
    r_in, r_out = ranks
    plain = replace(whole, kernel=(1, 1), stride=(1, 1), padding=(0, 0), dilation=(1, 1))
    last = replace(plain, c_in=r_out, h_in=whole.h_out, w_in=whole.w_out)
    if whole.kernel == MATRIX:
        # The stride comes first: what it leaves out need not be computed.
        stages: tuple[Problem, ...] = (replace(whole, c_out=r_in), last)
    else:
        stages = (replace(plain, c_out=r_in), replace(whole, c_in=r_in, c_out=r_out), last)
    return stages if sum(stage.weight_count for stage in stages) < whole.weight_count else (whole,)


def pack(problem: Problem, weight: Tensor, bias: Tensor | None, relu: bool) -> Packed:
    """Factorise the weight to the least ranks that give it back within `TOLERANCES`, and pack each factor."""
    exact = weight.detach().double()
    ranks = least_ranks(exact, TOLERANCES[problem.dtype])
    stages = stages_of(problem, ranks)
    factors = (exact,) if len(stages) == 1 else factorise(exact, ranks)
    pack_dense = dense.pack_conv2d_onednn if problem.op == "conv2d" else dense.pack_linear_onednn
    end = len(stages) - 1
    return tuple(
        pack_dense(stage, factor.float(), bias if number == end else None, relu and number == end)
        for number, (stage, factor) in enumerate(zip(stages, factors, strict=True))
    )


def run(packed: Packed, x: Tensor, residual: Tensor | None = None) -> Tensor:
    """The dense layers one after the other; bias, residual and ReLU belong to the last."""
    for number, layer in enumerate(packed):
        added = residual if number == len(packed) - 1 else None
        if isinstance(layer, dense.PackedConv):
            x = dense.run_conv2d_onednn(layer, x, added)
        else:
            x = dense.run_linear_onednn(layer, x, added)
    return x


def cost(problem: Problem) -> Cost:
    """The sum over the dense layers; threads share each by itself."""
    costs = [dense.prepacked_cost(stage) for stage in stages_of(problem, ranks_of(problem))]
    return Cost(
        unit=costs[0].unit,
        flop=sum(each.flop for each in costs),
        bytes_streamed=sum(each.bytes_streamed for each in costs),
        bytes_moved=sum(each.bytes_moved for each in costs),
        tasks=min(each.tasks for each in costs),
    )


def in_a_row(problem: Problem, *, kernel: str) -> tuple[tuple[Problem, str], ...]:
    """The dense problems that a low-rank problem amounts to, each with the kernel that runs it."""
    return tuple((stage, kernel) for stage in stages_of(problem, ranks_of(problem)))


def why_unsupported(problem: Problem, machine: Machine) -> str | None:
    """As dense layers of oneDNN; groups, which would each have ranks of their own, and other patterns are left out."""
    if not all(isinstance(part, LowRankPart) for part in parse_pattern(problem.pattern).parts):
        return f"factorises weights of low rank; the pattern is {problem.pattern!r}"
    if problem.groups > 1:
        return f"needs one group, the problem has {problem.groups}"
    return dense.why_onednn_unsupported(problem, machine)


def least_ranks(weight: Tensor, tolerance: float) -> tuple[int, int]:
    """The least (r_in, r_out) whose factors give [K, C, R, S] back, but for so much of its Frobenius norm."""
    sides = (weight.transpose(0, 1), weight)
    r_in, r_out = (_rank(torch.linalg.svdvals(side.flatten(1).double()), tolerance) for side in sides)
    return (r_in, r_out) if tuple(weight.shape[2:]) != MATRIX else (min(r_in, r_out),) * 2


def _bases(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Singular vectors, leading ones first, [C, ...] of the input channels and [K, ...] of the output channels."""
    return _vectors(weight.transpose(0, 1)), _vectors(weight)


def _factors(weight: Tensor, bases: tuple[Tensor, Tensor], ranks: tuple[int, int]) -> tuple[Tensor, ...]:
    """Leading singular vectors, and the weight seen through them."""
    to_inner, to_outer = bases[0][:, : ranks[0]].T, bases[1][:, : ranks[1]]
    first, last = to_inner[:, :, None, None], to_outer[:, :, None, None]
    if tuple(weight.shape[2:]) == MATRIX:
        inner = torch.einsum("kc,ic->ki", weight.flatten(1), to_inner)
        return first, (to_outer @ (to_outer.T @ inner))[:, :, None, None]
    return first, torch.einsum("ko,kcrs,ic->oirs", to_outer, weight, to_inner), last


def _vectors(weight: Tensor) -> Tensor:
    vectors: Tensor = torch.linalg.svd(weight.flatten(1), full_matrices=False).U
    return vectors


def _rank(singular: Tensor, tolerance: float) -> int:
    """Least number of singular values, descending, that leave no more than `tolerance` of the norm; at least 1."""
    energy = singular.square()
    left = energy.flip(0).cumsum(0).flip(0)
    return max(1, int((left > tolerance**2 * energy.sum()).sum()))


def _spec(op_layout: str, dtype: Dtype) -> KernelSpec:
    conv = op_layout == "conv2d"
    short, layout = dense.SHORT_DTYPES[dtype], "nhwc" if conv else "nchw"
    return KernelSpec(
        name=f"{op_layout}_{KIND}_{short}_{layout}__onednn",
        op="conv2d" if conv else "linear",
        patterns=(KIND,),
        dtype=dtype,
        isa="any",
        layout="nhwc" if conv else "nchw",
        pack=pack,
        run=run,
        cost=cost,
        why_unsupported=why_unsupported,
        in_a_row=partial(in_a_row, kernel=f"{op_layout}_dense_{short}_{layout}__onednn"),
    )


_DTYPES: tuple[Dtype, ...] = ("float32", "bfloat16")

KERNELS: tuple[KernelSpec, ...] = tuple(_spec(op, dtype) for op in ("conv2d", "linear") for dtype in _DTYPES)
