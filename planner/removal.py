"""Remove weights of one layer so that its output changes least, and let the others make up for them.

Optimal Brain Surgeon on the layer's own squared output error: the weights that cost least go first, a few percent of
those left at a time; after each step the rest is fitted anew and scored anew. No labels and no gradients are needed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..kernels.errors import UnsupportedError
from ..kernels.groups import free_density, shared_columns
from ..kernels.pattern import BlockPart, NmPart, Part, Pattern
from .column_blocks import Cut, cut_of, single_columns
from .refit_exact import ExactRefit
from .refit_shared import SharedRefit

DAMPING_FRAC = 0.01
"""Of the mean of the diagonal, added to it: inputs of a few hundred images leave some directions without any.
Frantar & Alistarh, SparseGPT, section 3."""
STEP_FRAC = 0.15
"""Of the groups that are left, removed at a time; scored one by one they would cost thousands of factorisations."""
ONE_BY_ONE = 32
"""So few groups go one at a time, which is exact and cheap."""
EXACT_FLOP = 2e11
"""Layers whose exact scores need more work, some seconds on two cores, share one inverse for all rows."""
SHARED_STEP_FRAC = 0.3
NM_STEPS = 8

Refit = ExactRefit | SharedRefit


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PrunedLayer:
    """A layer without some of its weights.

    Attributes
    ----------
    sparsity : float
        As it was asked for.
    weight : Tensor
        [K, C, R, S], refitted; zero outside `mask`.
    mask : Tensor
        bool, [K, C, R, S].
    error : Tensor
        [K]: squared change of the output of each channel, summed over positions, mean over the images.
    """

    sparsity: float
    weight: Tensor
    mask: Tensor
    error: Tensor


def remove_weights(
    weight: Tensor, gram: Tensor, pattern: Pattern, sparsities: Sequence[float], *, damping_frac: float = DAMPING_FRAC
) -> Iterator[PrunedLayer]:
    """The layer at each sparsity of a pattern, in ascending order.

    Sparsity means what it does to `magnitude_mask`: whole groups go, and parts of a combined pattern are applied in
    turn, each to what the parts before it left. A group counts by its cost a weight that is left in it, so that small
    groups at the end of an axis are not preferred.

    Parameters
    ----------
    weight : Tensor
        [K, C, R, S], dense.
    gram : Tensor
        [groups, C*R*S, C*R*S], from `layer_grams`; its dtype is that of the computation.

    Raises
    ------
    UnsupportedError
        If the pattern masks activations (SAS).

    References
    ----------
    Frantar & Alistarh, Optimal Brain Compression, NeurIPS 2022 (arXiv 2208.11580).
    """
    dense = weight.detach().flatten(1).to(gram.dtype)
    layer = _Layer(dense=dense, gram=_damped(gram, damping_frac), shape=tuple(weight.shape), pattern=pattern)
    whole = torch.ones_like(dense, dtype=torch.bool)
    # The first part goes on from where it was; what the parts after it remove depends on the sparsity.
    first = _State(support=whole, weights=dense)
    for sparsity in sorted(sparsities):
        density = free_density(pattern, sparsity)
        first = layer.walk(0, first, of=whole, density=density)
        last = first
        for number in range(1, len(pattern.parts)):
            last = layer.walk(number, last, of=last.support, density=density)
        weights = layer.refit.weights(last.support, last.weights)
        change = (weights - dense).reshape(len(gram), -1, gram.shape[1])
        yield PrunedLayer(
            sparsity=sparsity,
            weight=weights.reshape(weight.shape).to(weight.dtype),
            mask=last.support.reshape(weight.shape),
            error=((change @ gram) * change).sum(dim=2).flatten().clamp(min=0.0),
        )


def _damped(gram: Tensor, damping_frac: float) -> Tensor:
    mean = gram.diagonal(dim1=1, dim2=2).mean(dim=1, keepdim=True)
    found = gram.clone()
    # A layer that never gets any input (all zeros) would else have nothing to factor.
    found.diagonal(dim1=1, dim2=2).add_((damping_frac * mean).clamp(min=torch.finfo(gram.dtype).eps))
    return found


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _State:
    """Which weights are left, [K, D] bool, and their values when they were last scored."""

    support: Tensor
    weights: Tensor


class _Layer:
    """One layer under one pattern."""

    def __init__(self, *, dense: Tensor, gram: Tensor, shape: tuple[int, ...], pattern: Pattern) -> None:
        self._dense = dense
        self._gram = gram
        self._parts = [(part, _cut(part, shape)) for part in pattern.parts]
        self._shape = shape
        target = (dense.reshape(len(gram), -1, gram.shape[1]) @ gram).reshape(dense.shape)
        unit = len(dense) // len(gram)
        for _, cut in self._parts:
            unit = unit if cut.whole_rows else math.gcd(unit, cut.band_rows)
        work = len(dense) / unit * gram.shape[1] ** 3 / STEP_FRAC / 2.0
        self.refit: Refit
        if work <= EXACT_FLOP:
            self.refit = ExactRefit(gram=gram, target=target, unit_rows=unit)
            self._step_frac = STEP_FRAC
        else:
            inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram))
            self.refit = SharedRefit(gram=gram, inverse=inverse, target=target)
            self._step_frac = SHARED_STEP_FRAC

    def walk(self, number: int, state: _State, *, of: Tensor, density: float) -> _State:
        """Apply one part, until it keeps its share of the groups that hold anything of the support `of`."""
        part, cut = self._parts[number]
        if isinstance(part, NmPart):
            return self._thin(state, part, cut)
        keep = max(1, round(density * int((cut.left(of) > 0).sum())))
        if cut.whole_rows:
            return self._drop_rows(state, cut, keep)
        return self._shed(state, cut, keep)

    def _shed(self, state: _State, cut: Cut, keep: int) -> _State:
        left = cut.left(state.support)
        while (count := int((left > 0).sum())) > keep:
            weights, scores = self.refit.scores(state.support, state.weights, cut)
            cost = torch.where(left > 0, scores / left.clamp(min=1), math.inf)
            gone = torch.zeros(cost.numel(), dtype=torch.bool)
            step = min(count - keep, max(1, int(self._step_frac * (count - ONE_BY_ONE))))
            gone[cost.flatten().argsort(stable=True)[:step]] = True
            support = state.support & ~cut.spread(gone.reshape(cost.shape))
            state = _State(support=support, weights=weights)
            left = cut.left(support)
        return state

    def _drop_rows(self, state: _State, cut: Cut, keep: int) -> _State:
        """Rows do not make up for each other: what each costs does not change when others go."""
        change = (state.weights - self._dense).reshape(len(self._gram), -1, self._gram.shape[1])
        rows = self._dense.reshape(change.shape)
        extra = ((rows @ self._gram) * rows - (change @ self._gram) * change).sum(dim=2).flatten()
        cost = torch.zeros(cut.bands, dtype=extra.dtype).index_add_(0, cut.band_of_row(), extra)[:, None]
        left = cut.left(state.support)
        kept = torch.where(left > 0, cost / left.clamp(min=1), -math.inf).flatten().argsort(descending=True)[:keep]
        gone = torch.ones(cut.bands, dtype=torch.bool)
        gone[kept] = False
        support = state.support & ~cut.spread(gone[:, None])
        return _State(support=support, weights=state.weights * support)

    def _thin(self, state: _State, part: NmPart, cut: Cut) -> _State:
        """At most n of m consecutive input channels, the cheapest of a group at a time.

        Columns that several outputs share are chosen by their norms: scored together they would take as many solutions
        as there are columns.
        """
        if part.v > 1:
            shared = shared_columns(state.weights.reshape(self._shape), part).flatten(1)
            state = _State(support=state.support & shared, weights=state.weights)
        k, c, r, s = self._shape
        groups = math.ceil(c / part.m)

        def grouped(values: Tensor, fill: float) -> Tensor:
            padded = torch.nn.functional.pad(values.reshape(k, c, r * s), (0, 0, 0, groups * part.m - c), value=fill)
            return padded.reshape(k, groups, part.m, r * s)

        def too_many(support: Tensor) -> Tensor:
            return grouped(support.float(), 0.0).sum(dim=2) > part.n

        surplus = grouped(state.support.float(), 0.0).sum(dim=2) - part.n
        step = math.ceil(float(surplus.clamp(min=0.0).sum()) / NM_STEPS)
        while bool((crowded := too_many(state.support)).any()):
            weights, scores = self.refit.scores(state.support, state.weights, cut)
            cost = grouped(torch.where(state.support, scores, math.inf), math.inf)
            least, which = cost.min(dim=2)
            least = torch.where(crowded, least, math.inf)
            limit = least.flatten().kthvalue(min(step, int(crowded.sum()))).values
            gone = torch.zeros_like(cost, dtype=torch.bool)
            gone.scatter_(2, which[:, :, None], (crowded & (least <= limit))[:, :, None])
            flat = gone.reshape(k, groups * part.m, r * s)[:, :c].reshape(k, -1)
            state = _State(support=state.support & ~flat, weights=weights)
        return state


def _cut(part: Part, shape: tuple[int, ...]) -> Cut:
    if isinstance(part, BlockPart):
        return cut_of(part, shape)
    if isinstance(part, NmPart):
        return single_columns(shape)
    raise UnsupportedError(f"pattern {part.name!r} leaves weights dense; it has no weight mask")
