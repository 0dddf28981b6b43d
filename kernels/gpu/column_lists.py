"""Lists of the columns that each strip of output channels keeps, with their weights side by side: zeros left out.

A strip is `outputs` channels of one group of the layer. Its columns are the places (r, s, c) of the reduction, taken in
runs of `run` neighbouring channels; runs that are zero for the whole strip are left out, and the others are packed end
to end into steps of `depth` columns, the unit in which a matrix product consumes them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..problem import Problem

REACH_BITS = 16
"""Rows of a tap's reach lie above so many bits of its columns'."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """How a product is cut: pixels and output channels of a tile, columns of a step, channels of a run."""

    pixels: int
    outputs: int
    depth: int
    run: int
    warps: int
    stages: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnLists:
    """Weights ready for `triton_gather_product`, on the device where the weight lay.

    Attributes
    ----------
    values : Tensor
        [steps, outputs, depth], of the problem's dtype.
    starts : Tensor
        int32 [steps * depth / run]: where a run starts, in elements of one channels-last image, from the first pixel
        that an output pixel's window covers.
    reach : Tensor
        int32, likewise: rows and columns from that pixel to the run's, ``rows << 16 | columns``.
    bounds : Tensor
        int32 [strips + 1]: the steps of each strip.
    order : Tensor
        int32 [strips]: the strips, longest first, so that the last tiles to start are short.
    """

    values: Tensor
    starts: Tensor
    reach: Tensor
    bounds: Tensor
    order: Tensor


def strips_of(problem: Problem, outputs: int) -> int:
    """Strips of a layer; none crosses from one group of the layer into another."""
    return problem.groups * math.ceil(problem.c_out // problem.groups / outputs)


def column_lists(problem: Problem, weight: Tensor, tile: Tile, *, dtype: torch.dtype) -> ColumnLists:
    """List the columns of a weight [K, C, R, S] that contains zeros.

    `tile.run` must divide the input channels of a group, and `tile.depth` be a multiple of it.
    """
    groups, c_group, taps = problem.groups, problem.weight_shape[1], math.prod(problem.kernel)
    k_group, device = problem.c_out // groups, weight.device
    strips = strips_of(problem, tile.outputs)
    padded = F.pad(weight.detach().permute(0, 2, 3, 1).reshape(groups, k_group, -1), (0, 0, 0, -k_group % tile.outputs))
    runs = padded.reshape(strips, tile.outputs, taps * c_group // tile.run, tile.run).to(dtype)
    kept = (runs != 0).any(dim=3).any(dim=1)
    together = tile.depth // tile.run
    steps = (kept.sum(1) + together - 1) // together
    bounds = F.pad(steps.cumsum(0), (1, 0))
    strip, column = kept.nonzero(as_tuple=True)
    first = F.pad(kept.sum(1).cumsum(0), (1, 0))[:-1]
    # Kept runs fill the slots of their strip from its first step on; what is left of the last step stays zero.
    slot = bounds[strip] * together + torch.arange(len(strip), device=device) - first[strip]
    slots = int(bounds[-1]) * together
    start, reach = _places(problem, tile.run, device)
    values = runs.new_zeros(slots, tile.outputs, tile.run)
    values[slot] = runs[strip, :, column]
    starts, reaches = (torch.zeros(slots, dtype=torch.int32, device=device) for _ in range(2))
    offset = torch.div(strip * tile.outputs, tile.outputs * (strips // groups), rounding_mode="floor") * c_group
    starts[slot] = (start[column] + offset).to(torch.int32)
    reaches[slot] = reach[column].to(torch.int32)
    return ColumnLists(
        values=values.reshape(-1, together, tile.outputs, tile.run).transpose(1, 2).flatten(2).contiguous(),
        starts=starts,
        reach=reaches,
        bounds=bounds.to(torch.int32),
        order=steps.argsort(descending=True, stable=True).to(torch.int32),
    )


def _places(problem: Problem, run: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """(start, reach) of every run of a window, taps outermost, of the first group of the layer."""
    rows, columns = (
        torch.arange(taps, device=device) * dilation
        for taps, dilation in zip(problem.kernel, problem.dilation, strict=True)
    )
    pixel = (rows[:, None] * problem.w_in + columns[None, :]).reshape(-1, 1) * problem.c_in
    reach = ((rows[:, None] << REACH_BITS) | columns[None, :]).reshape(-1, 1)
    channel = torch.arange(0, problem.weight_shape[1], run, device=device)
    return (pixel + channel).flatten(), reach.expand(-1, len(channel)).flatten()
