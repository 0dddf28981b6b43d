"""The registry: every kernel there is. Tests, benchmarks, dispatch, cost model and documents all iterate over it."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from . import (
    compact,
    conv2d_unstructured,
    dense,
    linear_expand,
    linear_unstructured,
    lowrank,
    sas_select,
    sas_wide,
    shape,
    tile_sparse,
    vector_sparse,
)
from .errors import InputError
from .gpu import dense as gpu_dense
from .gpu import direct_convolution, gather_product, sas_halves, sas_sparse, semi_structured
from .spec import KernelSpec

REGISTRY: tuple[KernelSpec, ...] = (
    *dense.KERNELS,
    *compact.KERNELS,
    *shape.KERNELS,
    *conv2d_unstructured.KERNELS,
    *linear_unstructured.KERNELS,
    *linear_expand.KERNELS,
    *tile_sparse.KERNELS,
    *sas_select.KERNELS,
    *sas_wide.KERNELS,
    *vector_sparse.KERNELS,
    *lowrank.KERNELS,
    *gpu_dense.KERNELS,
    *gather_product.KERNELS,
    *semi_structured.KERNELS,
    *sas_halves.KERNELS,
    *sas_sparse.KERNELS,
    *direct_convolution.KERNELS,
)


def kernel_named(name: str, registry: Sequence[KernelSpec] = REGISTRY) -> KernelSpec:
    """The kernel of that name.

    Raises
    ------
    InputError
        If there is none; the message lists close names.
    """
    for kernel in registry:
        if kernel.name == name:
            return kernel
    names = [kernel.name for kernel in registry]
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5) or names
    raise InputError(f"no kernel is named {name!r}; close names: {', '.join(close)}")
