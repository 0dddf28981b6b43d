"""The weight of a problem: random under the pattern's mask, or the real one from a file."""

from __future__ import annotations

import gzip
import math
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
import torch
from torch import Tensor

from .errors import InputError
from .groups import magnitude_mask
from .lowrank import low_rank, ranks_of
from .pattern import LOW_RANK, parse_pattern
from .problem import Problem

_FORMATS = (".mtx", ".mtx.gz", ".npy")


def make_weight(problem: Problem, generator: torch.Generator, *, folder: Path | None = None) -> Tensor:
    """The weight of a problem.

    Parameters
    ----------
    generator : torch.Generator
        Source of random weights.
    folder : Path or None
        What a relative `problem.weights` starts from: the folder of the problems file, or None for the current one.

    Returns
    -------
    Tensor
        float32, [K, C, R, S]: from the file that the problem names, or normal random numbers (variance 2 / fan-in)
        of which the pattern's mask zeroes the weakest groups; a SAS pattern zeroes none.

    Raises
    ------
    InputError
        If the file is missing, not a matrix of the problem's size, or holds NaN or infinity.
    UnsupportedError
        If a SAS pattern is combined with others: no mask of a wide weight is defined.
    """
    if problem.weights is not None:
        path = Path(problem.weights)
        return read_weight(path if folder is None else folder / path, problem)
    pattern = parse_pattern(problem.pattern)
    fan_in = math.prod(problem.weight_shape[1:]) // pattern.slots
    weight = torch.randn(problem.weight_shape, generator=generator) * math.sqrt(2.0 / fan_in)
    return impose_pattern(weight, problem)


def impose_pattern(weight: Tensor, problem: Problem) -> Tensor:
    """The weight [K, C, R, S] with its weakest groups zeroed, or of low rank, as the problem's pattern has it.

    Raises
    ------
    UnsupportedError
        If a SAS pattern is combined with others: no mask of a wide weight is defined.
    """
    pattern = parse_pattern(problem.pattern)
    if pattern.kinds == ("sas",):
        return weight
    if pattern.text == LOW_RANK:
        return low_rank(weight, ranks_of(problem))
    return weight * magnitude_mask(weight, pattern, problem.sparsity)


def read_weight(path: Path, problem: Problem) -> Tensor:
    """Read a matrix [c_out, c_in / groups * R * S] from ``.mtx``, ``.mtx.gz`` or ``.npy``, as [K, C, R, S] float32.

    Raises
    ------
    InputError
        If the file is missing, unreadable, of another size, or holds NaN or infinity.
    """
    if not path.name.endswith(_FORMATS):
        raise InputError(f"weights file {path}: unknown ending; allowed are {', '.join(_FORMATS)}")
    content = _read(path)
    expected = (problem.c_out, math.prod(problem.weight_shape[1:]))
    # Before any conversion to dense: the size that a damaged header claims may not fit in memory.
    if content.shape not in (expected, problem.weight_shape):
        raise InputError(
            f"weights file {path}: got shape {content.shape}, the problem needs {expected} "
            "([c_out, c_in / groups * R * S]); correct the sizes of the problem or name another file"
        )
    if content.dtype.kind not in "fiu":
        raise InputError(f"weights file {path}: holds {content.dtype}; give real numbers")
    matrix = content if isinstance(content, np.ndarray) else content.toarray()
    with np.errstate(over="ignore"):
        weight = torch.from_numpy(np.ascontiguousarray(matrix, dtype=np.float32)).reshape(problem.weight_shape)
    if not torch.isfinite(weight).all():
        raise InputError(f"weights file {path}: holds NaN, infinity or numbers beyond float32; give finite weights")
    return weight


def _read(path: Path) -> Any:
    """A numpy array or a scipy sparse matrix."""
    try:
        if not path.name.endswith(".npy"):
            return scipy.io.mmread(path)
        with path.open("rb") as file:
            return np.lib.format.read_array(file, allow_pickle=False)
    except (gzip.BadGzipFile, zlib.error, ValueError, EOFError, OverflowError, MemoryError) as error:
        raise InputError(f"weights file {path} is not readable: {error}; write it again") from None
    except OSError as error:
        raise InputError(
            f"cannot read weights file {path}: {error.strerror or error}; give the path of an existing file"
        ) from None


def actual_sparsity(weight: Tensor) -> float:
    """Share of the weights that are zero."""
    return 1.0 - int(torch.count_nonzero(weight)) / weight.numel()


def flop_useful_of(problem: Problem, weight: Tensor) -> float:
    """Work on the non-zero weights there are; what the problem says for a pattern that zeroes none."""
    if not parse_pattern(problem.pattern).has_mask:
        return problem.flop_useful
    return problem.flop_dense_equiv * (1.0 - actual_sparsity(weight))


def with_actual_sparsity(problem: Problem, weight: Tensor) -> Problem:
    """The problem with the sparsity that a weight from a file really has.

    Problems with random weights, and patterns that dictate their sparsity (dense, N:M) or zero no weights, stay as they
    are.
    """
    pattern = parse_pattern(problem.pattern)
    if problem.weights is None or not pattern.has_mask or pattern.fixed_sparsity is not None:
        return problem
    return replace(problem, sparsity=actual_sparsity(weight))
