"""The compiled module (see kernels/native): sparse convolution and linear, reorders, and the machine's ceilings."""

from typing import Literal, final, overload

import numpy as np
from numpy.typing import NDArray

from .problem import Dtype
from .spec import Unit

def isa_list() -> list[str]: ...
def fill_scratch(value: float, threads: int) -> None: ...
def peak_flop_per_s(unit: Unit, seconds: float, threads: int) -> float | None: ...
def bandwidth_byte_per_s(
    access: Literal["load", "store", "copy"], bytes_per_thread: int, seconds: float, threads: int, repeats: int
) -> list[float]: ...
def parallel_region_latency_s(threads: int) -> float: ...
def timer_latency_s() -> float: ...
def cycle_s(threads: int, repeats: int) -> list[float]: ...
def requantise(
    *,
    isa: str,
    sums: NDArray[np.int32],
    bias: NDArray[np.int32],
    multiplier: NDArray[np.int32],
    shift: NDArray[np.int32],
    zero_point: int,
    low: int,
    residual: NDArray[np.uint8] | None,
    y: NDArray[np.uint8],
) -> None: ...
def store_bytes(*, isa: str, x: int, y: int, count: int, per_scale: float, zero_point: int, threads: int) -> None: ...
def load_bytes(*, isa: str, x: int, y: int, count: int, scale: float, zero_point: int, threads: int) -> None: ...
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
class Channels:
    def __init__(self, *, isa: str, total: int, index: list[int], value_bytes: int) -> None: ...
    def gather(self, source: int, source_bytes: int, target: int, target_bytes: int, threads: int) -> None: ...
    def scatter(
        self,
        source: int,
        source_bytes: int,
        constant: int,
        constant_bytes: int,
        target: int,
        target_bytes: int,
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
        area_rows: int,
        area_columns: int,
        tile_rows: int,
        tile_columns: int,
        k_block: int,
        c_blocks: int,
        copies_input: bool,
        copies_tiles: bool = False,
        window_channels: int = 0,
        window_blocks: int = 0,
        quad_rows: int = 0,
        quad_columns: int = 0,
        k_chunk: int = 1,
        asks_ahead: bool = False,
        streams_output: bool = False,
        layout: Literal["nchw", "nhwc", "blocked"] = "nchw",
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
class SasSelect:
    def __init__(
        self,
        *,
        isa: str,
        weight: NDArray[np.float32],
        bias: NDArray[np.float32] | None,
        relu: bool,
        n: int,
        c_in: int,
        size: list[int],
        stride: list[int],
        padding: list[int],
        dilation: list[int],
        groups: int,
        bits: int,
        vectors: int,
        c_block: int,
        tile: int,
        fetches_rows: bool,
    ) -> None: ...
    def run(self, x: int, x_bytes: int, residual: int, y: int, y_bytes: int, threads: int) -> None: ...

@final
class SasExpansion:
    def __init__(self, *, pixels: int, groups: int, channels: int, bits: int, value_bytes: int) -> None: ...
    def run(self, x: int, x_bytes: int, threads: int) -> int: ...

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

@final
class ExpandSparse:
    def __init__(
        self,
        *,
        isa: str,
        format: str,
        n: int,
        weight: NDArray[np.float32],
        bias: NDArray[np.float32] | None,
        relu: bool,
    ) -> None: ...
    def run(self, x: int, x_bytes: int, residual: int, y: int, y_bytes: int, threads: int) -> None: ...
    @property
    def packed_bytes(self) -> int: ...

@final
class TilesShape:
    def __init__(
        self,
        *,
        images: int,
        positions: int,
        tiles: int,
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
        groups: int,
        group_room: int,
        position_bytes: int,
        rows: int,
        pitch: int,
        phase_positions: int,
        copies_input: bool,
        relu: bool,
        fill: int,
    ) -> None: ...

@final
class TileSparse:
    @overload
    def __init__(
        self,
        *,
        isa: str,
        shape: TilesShape,
        phases_h: list[int],
        phases_w: list[int],
        weight: NDArray[np.float32],
        taps: list[int],
        bias: NDArray[np.float32] | None,
    ) -> None: ...
    @overload
    def __init__(
        self,
        *,
        isa: str,
        shape: TilesShape,
        phases_h: list[int],
        phases_w: list[int],
        weight: NDArray[np.int8],
        taps: list[int],
        bias: NDArray[np.int32],
        multiplier: NDArray[np.int32],
        shift: NDArray[np.int32],
        zero_point: int,
        low: int,
    ) -> None: ...
    def run(self, x: int, x_bytes: int, residual: int, y: int, y_bytes: int, threads: int) -> None: ...
    @property
    def tiles(self) -> int: ...

@final
class VectorShape:
    def __init__(
        self,
        *,
        n: int,
        h_in: int,
        w_in: int,
        c_out: int,
        h_out: int,
        w_out: int,
        stride_h: int,
        stride_w: int,
        pad_h: int,
        pad_w: int,
        groups: int,
        group_bytes: int,
        group_words: int,
        rows: int,
        pitch: int,
        phase_bytes: int,
        word_bytes: int,
        step_bytes: int,
        run_pixels: int,
        band_lines: int,
        band_columns: int,
        chunk_entries: int,
        copies_input: bool,
        padding_word: int,
    ) -> None: ...

@final
class VectorSparse:
    def __init__(
        self,
        *,
        isa: str,
        dtype: Dtype,
        shape: VectorShape,
        phases_h: list[int],
        phases_w: list[int],
        weight: NDArray[np.float32],
        tap_offset: NDArray[np.uint32],
        group_offset: int,
        bias: NDArray[np.float32] | None,
        relu: bool,
        requantisation: NDArray[np.int32] | None,
        zero_point: int,
        low: int,
    ) -> None: ...
    def run(self, x: int, x_bytes: int, residual: int, y: int, y_bytes: int, threads: int) -> None: ...
    @property
    def entries(self) -> int: ...
