"""Zero-padded phases of an image: every stride becomes a unit stride along the padded rows, end to end.

With stride s, phase a holds the padded rows (columns) a, a + s, a + 2 s, ...; a tap at distance d = r * dilation then
reads phase d mod s at shift d div s. The zeros right of a row serve as those left of the next, so the pitch from row to
row is smaller than a padded row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .problem import Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Phases:
    """The phases of one image, in positions (pixels of the padded image).

    Attributes
    ----------
    phases_h, phases_w : tuple of int
        Phases that some tap reads.
    rows, pitch : int
        Rows of a phase, and positions from one row to the next.
    phase_positions : int
        From one phase to the next.
    positions : int
        From the first output position to the last; those beyond the output's width hold garbage.
    """

    phases_h: tuple[int, ...]
    phases_w: tuple[int, ...]
    rows: int
    pitch: int
    phase_positions: int
    positions: int

    @property
    def held(self) -> int:
        """Positions of all phases."""
        return len(self.phases_h) * len(self.phases_w) * self.phase_positions


def phases_of(problem: Problem) -> Phases:
    """The phases that the taps of a problem read."""
    phases_h, phases_w = phases_read(problem)
    halo_h, halo_w = halo_of(problem)
    rows, row = problem.h_out + halo_h, problem.w_out + halo_w
    pitch = max(problem.w_out, row - min(_shared_zeros(problem, phase, row) for phase in phases_w))
    return Phases(
        phases_h=phases_h,
        phases_w=phases_w,
        rows=rows,
        pitch=pitch,
        phase_positions=rows * pitch + row - pitch,
        positions=(problem.h_out - 1) * pitch + problem.w_out,
    )


def phases_read(problem: Problem) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Phases of rows and of columns that some tap reads, ascending."""
    down, across = (
        tuple(sorted({distance % stride for distance in reach}))
        for reach, stride in zip(reach_of(problem), problem.stride, strict=True)
    )
    return down, across


def halo_of(problem: Problem) -> tuple[int, int]:
    """Rows and columns of a phase beyond those of the output."""
    down, across = reach_of(problem)
    return down[-1] // problem.stride[0], across[-1] // problem.stride[1]


def tap_offsets(problem: Problem, *, phase_step: int, row_step: int, column_step: int) -> NDArray[np.int64]:
    """[R, S]: from an output position to what each tap multiplies, where phases, rows and columns lie so far apart."""
    (shift_h, phase_h), (shift_w, phase_w) = (
        np.divmod(reach, stride) for reach, stride in zip(reach_of(problem), problem.stride, strict=True)
    )
    phases_h, phases_w = phases_read(problem)
    index_h, index_w = np.searchsorted(phases_h, phase_h), np.searchsorted(phases_w, phase_w)
    phase = index_h[:, None] * len(phases_w) + index_w[None, :]
    offsets: NDArray[np.int64] = (
        phase * phase_step + shift_h[:, None] * row_step + shift_w[None, :] * column_step
    ).astype(np.int64)
    return offsets


def reach_of(problem: Problem) -> tuple[list[int], list[int]]:
    """Distance of each row and column of taps from the first, in pixels of the padded image."""
    down, across = (
        [tap * dilation for tap in range(taps)] for taps, dilation in zip(problem.kernel, problem.dilation, strict=True)
    )
    return down, across


def _shared_zeros(problem: Problem, phase: int, row: int) -> int:
    """Zero columns that a phase has at both ends of a row of `row` columns: one row's right ones serve the next row."""
    stride, padding = problem.stride[1], problem.padding[1]
    left = max(0, math.ceil((padding - phase) / stride))
    last = (problem.w_in - 1 + padding - phase) // stride
    return min(left, max(0, row - 1 - last))
