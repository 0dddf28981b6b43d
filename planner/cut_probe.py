"""Check by running it that a model whose channels or branches are cut out computes what zeros in their place do."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from .branches import remove_branches
from .narrow import BATCH_NORMS, mask_units, narrow, zero_parameters
from .schema import WidthGroup

FAILURES = (
    fx.proxy.TraceError,
    RuntimeError,
    ValueError,
    TypeError,
    AttributeError,
    KeyError,
    IndexError,
    AssertionError,
)
"""What tracers, and models cut where they must not be, raise."""
SAME_FRAC = 1e-3
"""Outputs closer than this, in parts of the largest, are the same up to float32 error; a wrong cut is off by 0.1."""

Cut = TypeVar("Cut")


def sound(cuts: Sequence[Cut], agrees: Callable[[Sequence[Cut]], bool]) -> list[Cut]:
    """The cuts that can be made, by halving where not all can."""
    if not cuts:
        return []
    if agrees(cuts):
        return list(cuts)
    if len(cuts) == 1:
        return []
    half = len(cuts) // 2
    return [*sound(cuts[:half], agrees), *sound(cuts[half:], agrees)]


class Probe:
    """Runs a model, with other numbers for weights, cut and masked: both must compute the same."""

    def __init__(self, model: nn.Module, example: Tensor) -> None:
        self._example = example
        self._model = copy.deepcopy(model).eval().requires_grad_(False)
        self._generator = torch.Generator().manual_seed(0)
        for module in self._model.modules():
            self._randomise(module)

    def agrees(self, groups: Sequence[WidthGroup]) -> bool:
        """Whether groups can be cut, all at once: about a third of the units of each, drawn by chance."""
        masked, cut = copy.deepcopy(self._model), copy.deepcopy(self._model)
        try:
            kept = {group: self._draw(group) for group in groups}
            for group, units in kept.items():
                mask_units(masked, group, units)
            narrow(cut, kept)
            return self._same(masked, cut)
        except FAILURES:
            return False

    def agrees_without(self, branches: Sequence[tuple[str, ...]]) -> bool:
        """Whether the network without these branches computes what zeros in all of them do."""
        masked, cut = copy.deepcopy(self._model), copy.deepcopy(self._model)
        try:
            for names in branches:
                for name in names:
                    zero_parameters(masked.get_submodule(name))
            traced = fx.symbolic_trace(cut)
            remove_branches(traced, {frozenset(names) for names in branches})
            return self._same(masked, traced)
        except FAILURES:
            return False

    def _same(self, masked: nn.Module, cut: nn.Module) -> bool:
        expected, seen = self._outputs(masked), self._outputs(cut)
        return len(expected) == len(seen) and all(
            one.shape == other.shape and bool(((one - other).abs().max() <= SAME_FRAC * one.abs().max()).item())
            for one, other in zip(expected, seen, strict=True)
        )

    @torch.no_grad()
    def _outputs(self, model: nn.Module) -> list[Tensor]:
        return [leaf for leaf in tree_leaves(model(self._example)) if isinstance(leaf, Tensor)]

    def _draw(self, group: WidthGroup) -> list[int]:
        order = torch.randperm(group.units, generator=self._generator)
        return sorted(order[: max(1, 2 * group.units // 3)].tolist())

    def _randomise(self, module: nn.Module) -> None:
        """Zeros of a network that starts as the identity, for one, would hide a wrong cut."""
        values = {**module._parameters, **module._buffers}
        norm = isinstance(module, BATCH_NORMS)
        for name, tensor in values.items():
            if tensor is None or not tensor.is_floating_point():
                continue
            if tensor.dim() >= 2 and name == "weight":
                fan_in = tensor[0].numel()
                drawn = torch.randn(tensor.shape, generator=self._generator) * (2.0 / fan_in) ** 0.5
            elif name in ("bias", "running_mean"):
                drawn = 0.1 * torch.randn(tensor.shape, generator=self._generator)
            elif norm and name in ("weight", "running_var"):
                drawn = 0.5 + torch.rand(tensor.shape, generator=self._generator)
            else:
                continue
            with torch.no_grad():
                tensor.copy_(drawn)
