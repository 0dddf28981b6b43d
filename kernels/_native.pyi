"""The compiled module (see kernels/native): sparse convolution and linear, reorders, and the machine's ceilings."""

from typing import Literal, final

import numpy as np
from numpy.typing import NDArray

from .spec import Unit

def isa_list() -> list[str]: ...
def fill_scratch(value: float, threads: int) -> None: ...
def peak_flop_per_s(unit: Unit, seconds: float, threads: int) -> float | None: ...
def bandwidth_byte_per_s(bytes_per_thread: int, seconds: float, threads: int) -> float: ...
def parallel_region_latency_s(threads: int) -> float: ...
def reorder(
    *,
    isa: str,
    source: Literal["nchw", "nhwc", "blocked"],
    target: Literal["nchw", "nhwc", "blocked"],
    n: int,
    channels: int,
    pixels: int,
    x: int,
    x_bytes: int,
    y: int,
    y_bytes: int,
    threads: int,
) -> None: ...

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
        vectors: int,
        tile: int,
        k_block: int,
        c_blocks: int,
        copies_input: bool,
        copies_tiles: bool = False,
        layout: Literal["nchw", "nhwc", "blocked"] = "nchw",
    ) -> None: ...

@final
class FlatSparse:
    def __init__(
        self,
        *,
        isa: str,
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
