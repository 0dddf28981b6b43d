"""The compiled module: flat sparse convolution, sparse linear, and the ceilings of the machine (see kernels/native)."""

from typing import final

import numpy as np
from numpy.typing import NDArray

from .spec import Unit

def isa_list() -> list[str]: ...
def advise_huge_pages(address: int, bytes: int) -> None: ...
def fill_scratch(value: float, threads: int) -> None: ...
def peak_flop_per_s(unit: Unit, seconds: float, threads: int) -> float | None: ...
def bandwidth_byte_per_s(bytes_per_thread: int, seconds: float, threads: int) -> float: ...
def parallel_region_latency_s(threads: int) -> float: ...

@final
class FlatShape:
    def __init__(
        self,
        *,
        n: int,
        c_in: int,
        h_in: int,
        w_in: int,
        c_out: int,
        h_out: int,
        w_out: int,
        stride_h: int,
        stride_w: int,
        pad_h: int,
        pad_w: int,
        images: int,
        rows: int,
        pitch: int,
        phase_floats: int,
        channel_floats: int,
        area_rows: int,
        area_columns: int,
        tile_rows: int,
        tile_columns: int,
        k_block: int,
        c_blocks: int,
        copies_input: bool,
    ) -> None: ...

@final
class FlatSparse:
    def __init__(
        self,
        *,
        isa: str,
        lanes: int,
        shape: FlatShape,
        phases_h: list[int],
        phases_w: list[int],
        weight: NDArray[np.float32],
        tap_offset: NDArray[np.uint32],
        block_taps: int,
        groups: int,
        group_offset: int,
        bias: NDArray[np.float32] | None,
        relu: bool,
    ) -> None: ...
    def run(self, x: int, x_bytes: int, residual: int, y: int, y_bytes: int, threads: int) -> None: ...
    @property
    def nonzeros(self) -> int: ...

@final
class SellSparse:
    def __init__(
        self,
        *,
        isa: str,
        n: int,
        weight: NDArray[np.float32],
        bias: NDArray[np.float32] | None,
        relu: bool,
    ) -> None: ...
    def run(self, x: int, x_bytes: int, residual: int, y: int, y_bytes: int, threads: int) -> None: ...
    @property
    def stored(self) -> int: ...
