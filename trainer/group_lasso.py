"""Group lasso by its proximal step: groups shrink to exact zeros.

The penalty is SSL's, ``strength * sum over groups of sqrt(group size) * ||w_g||``. Two things differ from the paper. A
proximal step replaces the sub-gradient and its threshold, so zeros are exact. And only the groups that the plan is
about to take away are penalised: the plan fixes how many groups go, so a penalty on the survivors would only bias them,
and no layer ends sparser than planned.

References
----------
Wen et al., "Learning structured sparsity in deep neural networks", NIPS 2016, equation 1.
Parikh and Boyd, "Proximal algorithms", 2014, section 6.5.1 (block soft thresholding).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..kernels.groups import expand_groups, group_norms, group_sizes, magnitude_mask
from ..kernels.pattern import BlockPart, Pattern


def structured_parts(pattern: Pattern) -> tuple[BlockPart, ...]:
    """Parts of a pattern whose groups hold more than one weight by design: all but unstructured and N:M."""
    return tuple(part for part in pattern.parts if isinstance(part, BlockPart) and part.block != (1, 1, 1, 1))


def group_soft_threshold(weight: Tensor, part: BlockPart, *, threshold: Tensor) -> Tensor:
    """Minimise ``1/2 ||w - weight||^2 + sum over groups of threshold_g * ||w_g||``.

    Parameters
    ----------
    weight : Tensor
        [K, C, R, S].
    threshold : Tensor
        One for each group, at least 0; of the part's grid shape.

    Returns
    -------
    Tensor
        [K, C, R, S]; a group with a norm of at most its threshold is exactly zero.
    """
    norms = group_norms(weight, part)
    smallest = torch.finfo(norms.dtype).tiny
    scale = (1.0 - threshold / norms.clamp_min(smallest)).clamp_min(0.0)
    return weight * expand_groups(scale, tuple(weight.shape), part)


def shrink_doomed_groups(weight: Tensor, pattern: Pattern, *, sparsity: float, strength: float) -> Tensor:
    """One proximal step on the groups that are, by their present norms, not among the survivors.

    Parameters
    ----------
    weight : Tensor
        [K, C, R, S].
    sparsity : float
        Share of the weights that is soon to go.
    strength : float
        Penalty times learning rate, summed over the steps that this one stands for.

    Returns
    -------
    Tensor
        [K, C, R, S]; the surviving groups are untouched.
    """
    shape = tuple(weight.shape)
    kept = magnitude_mask(weight, pattern, sparsity).to(weight.dtype)
    for part in structured_parts(pattern):
        doomed = group_norms(kept, part) == 0
        threshold = strength * group_sizes(shape, part).to(weight.device).sqrt() * doomed
        weight = group_soft_threshold(weight, part, threshold=threshold)
    return weight


SSL_THRESHOLD = 1e-4
"""Weights below it were set to zero after each step in SSL's code."""


def ssl_subgradient(weight: Tensor, pattern: Pattern, *, strength: float) -> Tensor:
    """Sub-gradient of the penalty, ``strength * sqrt(group size) * w / ||w_g||``, summed over parts: SSL's own form.

    Descent along it never reaches zero by itself; what is below `SSL_THRESHOLD` after a step has to be cut.

    Parameters
    ----------
    weight : Tensor
        [K, C, R, S].
    """
    shape = tuple(weight.shape)
    scale = torch.zeros_like(weight)
    for part in structured_parts(pattern):
        roots = group_sizes(shape, part).to(weight.device).sqrt()
        scale += expand_groups(strength * roots / group_norms(weight, part).clamp_min(SSL_THRESHOLD), shape, part)
    return scale * weight


def cut_small(weight: Tensor) -> None:
    """Set the single weights below SSL's threshold to zero, in place."""
    weight[weight.abs() < SSL_THRESHOLD] = 0.0
