"""What a network takes beyond the layers and operations that it consists of."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkTerms:
    """``time = call + layer * calls + kind * kinds + sum(kernels) + sum(waits) + between * sum(operations between)``,
    where each wait is ``refetch * weights + handover * activations``.

    Attributes
    ----------
    call_s : float
        Entering a compiled network once.
    layer_s : float
        Calling one of its dense layers; the time of a kernel by itself leaves that out.
    kind_s : float
        For each different layer: its code and tables, which the others pushed out of the caches since the last pass.
    refetch_frac : float
        Multiple of the wait for weights that the caches could not keep (see `waits.refetch_s`).
    handover_frac : float
        Multiple of the wait for activations that other cores had last (see `waits.handover_s`).
    between_scale : float
        Time of operations between the layers, as torch compiles them, over that of the same operations called by name.
    """

    call_s: float
    layer_s: float
    kind_s: float
    refetch_frac: float
    handover_frac: float
    between_scale: float


ASSUMED = NetworkTerms(
    call_s=30e-6, layer_s=2e-6, kind_s=10e-6, refetch_frac=0.9, handover_frac=0.22, between_scale=1.0
)
"""Where no network was measured: what the layers of nine networks took longer in the profiler of torch 2.13 than by
themselves, on two cores of a 4 GHz CPU. Per pass, layer and kind: looking up guards and descriptors."""
GPU_ASSUMED = NetworkTerms(
    call_s=5e-6, layer_s=1e-7, kind_s=1e-7, refetch_frac=0.4, handover_frac=0.5, between_scale=1.0
)
"""Likewise on a GPU, where a network is replayed as a CUDA graph: launching it once, and next to nothing for each
layer, as layers are timed in graphs too. Assumed: no GPU has been measured yet."""
