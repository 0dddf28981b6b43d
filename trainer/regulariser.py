"""Hold a model to a plan while it is trained, by whatever loop: penalties, masks, N:M search.

A loop of one's own needs three calls::

    regulariser = prepare(model, plan, optimizer, prune_steps=1000)
    for images, labels in batches:
        ...
        loss.backward()
        optimizer.step()
        regulariser.step()
    regulariser.finish()

What has to happen between the backward pass and the optimiser's step hangs on the optimiser itself (a step hook).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..kernels.errors import InputError, UnsupportedError
from ..kernels.groups import magnitude_mask
from ..kernels.pattern import NmPart, Pattern
from ..kernels.weight_view import weight_view
from ..planner.match import check_plan_fits
from ..planner.schema import Plan
from ..planner.store import load_plan
from .assignment import Assignment, assignment_of
from .group_lasso import cut_small, ssl_subgradient, structured_parts
from .hidden import HiddenWeights
from .int8_layers import int8_layers
from .low_rank import low_rank_layers
from .masked_width import MaskedWidth
from .masks import MaskedLayer, hold_gradients, hold_optimizer, masked_layers, take_refitted, update_masks
from .schema import NmMethod, RegulariserState, Structured, TrainConfig
from .steer import steer

MASK_EVERY = 32
"""Steps between two updates of the masks; sorting all weights costs up to half a step."""
NM_EVERY = 8
"""Steps between two searches of N:M masks: sorting within groups costs as much, and few weights change places."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneOptions:
    """How a model is taken to a plan; the attributes are those of `TrainConfig`.

    Attributes
    ----------
    prune_steps : int
        Steps in which sparsity grows; 0 prunes at once.
    """

    prune_steps: int
    group_lasso: float = TrainConfig.model_fields["group_lasso"].default
    structured: Structured = "proximal"
    nm: NmMethod = "sr-ste"
    sr_ste: float = TrainConfig.model_fields["sr_ste"].default
    esl_strength: float = TrainConfig.model_fields["esl_strength"].default
    esl_threshold: float = TrainConfig.model_fields["esl_threshold"].default
    esl_factor: float = TrainConfig.model_fields["esl_factor"].default


def prepare(
    model: nn.Module, plan: Plan | Path | str, optimizer: torch.optim.Optimizer, *, options: PruneOptions
) -> Regulariser:
    """Begin to prune a model to a plan.

    Parameters
    ----------
    plan : Plan or path
    optimizer : torch.optim.Optimizer
        Of the model's parameters; the learning rate is read from its first group.

    Returns
    -------
    Regulariser
        Call its `step` after every step of the optimiser, and `finish` at the end.

    Raises
    ------
    InputError
        If the plan is for another model, or the optimiser does not hold a planned weight.
    UnsupportedError
        If a pattern is not one of weights (SAS), or brings a layer to low rank; if a layer is to be in int8.
    """
    plan = plan if isinstance(plan, Plan) else load_plan(Path(plan))
    check_plan_fits(plan, model)
    if low_rank_layers(plan):
        raise UnsupportedError(
            f"the plan brings {', '.join(low_rank_layers(plan))} to low rank, which no mask holds; train it with "
            "'sparseplan train', or plan without the pattern lowrank"
        )
    if int8_layers(plan):
        raise UnsupportedError(
            f"the plan computes {', '.join(int8_layers(plan))} in int8, which a plain layer does not learn; train it "
            "with 'sparseplan train', or plan with another --dtype"
        )
    regulariser = Regulariser(model, assignment_of(plan), optimizer, options=options)
    regulariser.start()
    return regulariser


class Regulariser:
    """Takes a model to an assignment and holds it there; see `prepare`."""

    def __init__(
        self, model: nn.Module, assignment: Assignment, optimizer: torch.optim.Optimizer, *, options: PruneOptions
    ) -> None:
        self.layers = masked_layers(model, assignment)
        self.options = options
        self._optimizer = optimizer
        self._steps, self._updated, self._pending_rate, self._final = 0, 0, 0.0, False
        self._first = {layer.target.name: _first_strength(layer, options) for layer in self.layers}
        self._strength = {name: first for name, first in self._first.items() if first > 0.0}
        self._hidden = self._hide() if options.prune_steps > 0 else {}
        self._hook = optimizer.register_step_pre_hook(lambda *_: self.before_step())
        self._check_optimizer()

    @property
    def pruning(self) -> bool:
        """Whether sparsity still grows, or will."""
        return not self._final

    @property
    def renews_next(self) -> bool:
        """Whether the next `step` renews the masks."""
        steps = self._steps + 1
        return not self._final and (steps >= self.options.prune_steps or steps % MASK_EVERY == 0)

    @property
    def masks_alone(self) -> bool:
        """Whether nothing but fixed masks acts between two renewals."""
        return not self._hidden and not any(True for _ in self._sub_gradient())

    @property
    def strength(self) -> Mapping[str, float]:
        """Of each penalised target, as it is steered."""
        return self._strength

    def start(self) -> None:
        """Before the first step: SR-STE's masks are there at once, and all masks where nothing is to grow."""
        if self.options.prune_steps == 0:
            self.finish()
        for hidden in self._hidden.values():
            hidden.after_step(renew=True)

    def step(self) -> None:
        """After every step of the optimiser."""
        self._steps += 1
        if self._final:
            return
        self._pending_rate += float(self._optimizer.param_groups[0]["lr"])
        for hidden in self._hidden.values():
            hidden.after_step(renew=self._renews_hidden())
        if self._steps >= self.options.prune_steps:
            self.finish()
            return
        for layer in self._sub_gradient():
            cut_small(layer.weight.data)
        if self._steps % MASK_EVERY == 0:
            self._update()

    def finish(self) -> None:
        """Make the masks those of the plan, for good; also when training ends before `prune_steps`."""
        if self._final:
            return
        for hidden in self._hidden.values():
            hidden.reveal()
        self._hidden, self._final = {}, True
        update_masks(self.layers, done_frac=1.0)
        hold_optimizer(self.layers, self._optimizer)

    @torch.no_grad()
    def begin_from(self, weights: Mapping[str, Tensor]) -> None:
        """Start from pruned and refitted weights instead of pruning: their zeros are the masks, for good.

        Parameters
        ----------
        weights : mapping
            By the name of every layer of the assignment, [K, C, R, S].
        """
        take_refitted(self.layers, weights)
        self._hidden, self._final = {}, True

    def masks(self) -> dict[nn.Parameter, Tensor]:
        """By parameter: the factor, 0 or 1, that holds it; of several that cut the same one, their product."""
        found: dict[nn.Parameter, Tensor] = {}
        for layer in self.layers:
            for parameter, mask in _held(layer):
                found[parameter] = found[parameter] * mask if parameter in found else mask
        return found

    def state(self) -> RegulariserState:
        """What a checkpoint says beside `tensors`."""
        return RegulariserState(
            steps=self._steps,
            updated=self._updated,
            pending_rate=self._pending_rate,
            final=self._final,
            strength=dict(self._strength),
        )

    def tensors(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Masks (bool) and hidden weights, by the names of the targets."""
        masks = {layer.target.name: layer.mask.bool() for layer in self.layers}
        return masks, {name: hidden.values for name, hidden in self._hidden.items()}

    @torch.no_grad()
    def restore(self, state: RegulariserState, masks: Mapping[str, Tensor], hidden: Mapping[str, Tensor]) -> None:
        """Go back to a state of the same assignment."""
        self._steps, self._updated, self._pending_rate = state.steps, state.updated, state.pending_rate
        self._final = state.final
        self._strength.update(state.strength)
        for layer in self.layers:
            layer.mask.copy_(masks[layer.target.name])
        if self._final:
            self._hidden = {}
        for name, values in self._hidden.items():
            values.values.copy_(hidden[name])

    def before_step(self) -> None:
        """Between the backward pass and the step of the optimiser, which calls it."""
        for layer in self._sub_gradient():
            if layer.module.weight.grad is not None:
                layer.module.weight.grad += _subgradient(layer, self._strength[layer.target.name])
        for hidden in self._hidden.values():
            hidden.before_step()
        hold_gradients(self._masked())

    def _update(self) -> None:
        done, before = (steps / self.options.prune_steps for steps in (self._steps, self._updated))
        shrink = {name: strength * self._pending_rate for name, strength in self._strength.items()}
        # What SSL's own penalty thins out is cut at the end of the phase alone.
        left_alone = {layer.target.name for layer in self._sub_gradient()}
        scheduled = [layer for layer in self._masked() if layer.target.name not in left_alone]
        seen = update_masks(scheduled, done_frac=done, before_frac=before, shrink=shrink)
        hold_optimizer(scheduled, self._optimizer)
        for name, emergence in seen.items():
            self._strength[name] = steer(self._strength[name], emergence, first=self._first[name])
        self._updated, self._pending_rate = self._steps, 0.0

    def _renews_hidden(self) -> bool:
        """Whether masks of hidden weights are made anew between two updates."""
        return self._steps % NM_EVERY == 0

    def _masked(self) -> list[MaskedLayer | MaskedWidth]:
        """What a mask alone holds."""
        return [layer for layer in self.layers if layer.target.name not in self._hidden]

    def _sub_gradient(self) -> Iterator[MaskedLayer]:
        """What SSL's own penalty thins out at present."""
        if self.options.structured == "subgradient" and not self._final:
            for layer in self.layers:
                if isinstance(layer, MaskedLayer) and layer.target.name in self._strength:
                    yield layer

    def _hide(self) -> dict[str, HiddenWeights]:
        if self.options.nm != "sr-ste":
            return {}
        return {
            layer.target.name: HiddenWeights(
                parameter=layer.module.get_parameter("weight"),
                mask=layer.mask,
                mask_of=_NmMask(layer.target.pattern, tuple(weight_view(layer.module).shape)),
                decay=self.options.sr_ste,
            )
            for layer in self.layers
            if isinstance(layer, MaskedLayer) and _is_nm(layer.target.pattern)
        }

    def _check_optimizer(self) -> None:
        held = {id(parameter) for group in self._optimizer.param_groups for parameter in group["params"]}
        for layer in self.layers:
            if isinstance(layer, MaskedLayer) and id(layer.module.weight) not in held:
                raise InputError(
                    f"the optimiser does not hold the weight of planned layer {layer.target.name!r}; "
                    "make it from the parameters of the very model that is prepared"
                )


def _first_strength(layer: MaskedLayer | MaskedWidth, options: PruneOptions) -> float:
    if isinstance(layer, MaskedWidth):
        return options.group_lasso if options.structured == "proximal" else 0.0
    structured = bool(structured_parts(layer.target.pattern))
    return options.group_lasso * layer.target.time_frac if structured else 0.0


def _is_nm(pattern: Pattern) -> bool:
    return len(pattern.parts) == 1 and isinstance(pattern.parts[0], NmPart)


@torch.no_grad()
def _subgradient(layer: MaskedLayer, strength: float) -> Tensor:
    weight = weight_view(layer.module).detach()
    return ssl_subgradient(weight, layer.target.pattern, strength=strength).reshape(layer.weight.shape)


def _held(layer: MaskedLayer | MaskedWidth) -> Iterator[tuple[nn.Parameter, Tensor]]:
    for parameter, mask in layer.held():
        assert isinstance(parameter, nn.Parameter)
        yield parameter, mask


@dataclass(frozen=True, slots=True)
class _NmMask:
    """The n strongest of m consecutive input channels, in the shape of the parameter."""

    pattern: Pattern
    shape: tuple[int, ...]

    def __call__(self, weight: Tensor, mask: Tensor) -> Tensor:
        kept = magnitude_mask(weight.detach().reshape(self.shape), self.pattern, self.pattern.least_sparsity)
        return kept.reshape(mask.shape)
