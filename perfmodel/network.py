"""What a network takes beyond the layers and operations that it consists of."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkTerms:
    """``time = call + layers * calls + sum(kernels) + sum(waits) + between * sum(operations between)``, where each wait
    is ``refetch * weights + handover * inputs``.

    Attributes
    ----------
    call_s : float
        Entering a compiled network once.
    layer_s : float
        Calling one of its dense layers; the time of a kernel by itself leaves that out.
    refetch_frac : float
        Share of the wait for weights that the caches could not keep (see `waits.refetch_s`) which is not hidden behind
        arithmetic.
    handover_frac : float
        Multiple of the wait for what other cores wrote last (see `waits.handover_s`).
    between_scale : float
        Time of operations between the layers, as torch compiles them, over that of the same operations called by name.
    """

    call_s: float
    layer_s: float
    refetch_frac: float
    handover_frac: float
    between_scale: float


ASSUMED = NetworkTerms(call_s=30e-6, layer_s=4e-6, refetch_frac=0.4, handover_frac=0.5, between_scale=1.3)
"""Where no network was measured: middle values of 18 networks, compiled by torch 2.13 on two cores of a 4 GHz CPU."""
GPU_ASSUMED = NetworkTerms(call_s=5e-6, layer_s=1e-7, refetch_frac=0.4, handover_frac=0.5, between_scale=1.0)
"""Likewise on a GPU, where a network is replayed as a CUDA graph: launching it once, and next to nothing for each
layer, as layers are timed in graphs too. Assumed: no GPU has been measured yet."""
