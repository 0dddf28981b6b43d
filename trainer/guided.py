"""Guided sparsity learning: single weights go by one threshold, which follows from the network's target time.

A weight goes when it is below a threshold that is the same for all layers, in units of their root mean square. The
threshold follows from the target: it is the one at which the projected time of the network is met, and the sparsity
grows to what it leaves by the cubic schedule. Three methods make the zeros so:

- ``l1``: the proximal step of an element-wise L1 penalty (ISTA), weighed by the machine's time per weight of the layer;
  its strength is a controller's output, and what it still owes at the end is cut;
- ``magnitude``: weights below the threshold go, for good;
- ``surgery``: the same, but they may return (dynamic network surgery), with a margin between going and returning.

For comparison there is ``esl``, where the zeros follow from three numbers that are given and the target is not steered
to; see `element_l1`.

The guide takes layers out of it; see `guide`.

References
----------
Park et al., ICLR 2017; Guo et al., Dynamic network surgery for efficient DNNs, NIPS 2016, equation 3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..kernels.errors import InputError
from ..kernels.pattern import parse_pattern
from .assignment import Assignment, LayerSparsity
from .element_l1 import ElementL1, ThinningWeights
from .guide import Guide
from .hidden import HiddenWeights
from .masks import MaskedLayer, apply_masks, hold_optimizer
from .projection import PATTERN, NetworkProjection
from .regulariser import MASK_EVERY, PruneOptions, Regulariser
from .schedule import cubic_sparsity
from .schema import GuideBounds, GuideMethod, RegulariserState
from .steer import Emergence, steer

OBSERVE_EVERY = 4 * MASK_EVERY
"""Steps between two observations of the guide."""
FIRST_STRENGTH = 1e-4
"""Of the L1 penalty, before it is steered."""
LARGEST_THRESHOLD = 10.0
"""In root mean squares; hardly a weight is larger."""
HALVINGS = 30
"""Of the interval in which a threshold is sought: to 1e-8 root mean squares."""
MARGIN = 0.1
"""Weights return under surgery when they are this much above the threshold, and go when they are below it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuideOptions:
    """What guided training follows, and how it makes zeros."""

    projection: NetworkProjection
    method: GuideMethod


def guided_assignment(projection: NetworkProjection) -> Assignment:
    """The layers that guided training may prune; the sparsity is where more gains nothing."""
    saved = {
        name: layer.calls * (layer.dense_s - layer.time_s(1.0))
        for name, layer in projection.layers.items()
        if layer.lower is not None
    }
    mean = sum(saved.values()) / len(saved)
    return tuple(
        LayerSparsity(
            name=name,
            pattern=parse_pattern(PATTERN),
            sparsity=projection.layers[name].upper or 1.0,
            time_frac=time_s / mean if mean > 0 else 1.0,
        )
        for name, time_s in saved.items()
    )


class GuidedRegulariser(Regulariser):
    """Prunes to a target time instead of to given sparsities."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        options: PruneOptions,
        guide: GuideOptions,
    ) -> None:
        if options.prune_steps == 0:
            raise InputError(
                "guided training finds its zeros while it trains; give at least two --epochs and a --prune-frac above 0"
            )
        projection = guide.projection
        fastest_s = projection.time_s(dict.fromkeys(projection.layers, 1.0))
        if fastest_s > projection.target_s and guide.method != "esl":
            raise InputError(
                f"guided training reaches {projection.dense_s / fastest_s:.2f}x at most, the target is "
                f"{projection.dense_s / projection.target_s:.2f}x; plan for less"
            )
        super().__init__(model, guided_assignment(guide.projection), optimizer, options=options)
        self._guide, self._projection, self._method = Guide(guide.projection), guide.projection, guide.method
        self._strength = {"l1": FIRST_STRENGTH} if guide.method == "l1" else {}
        self._thinning = ThinningWeights(_element_l1(options)) if guide.method == "esl" else None
        self._due_frac, self._threshold = 0.0, 0.0
        self._dense = {layer.target.name: layer.weight.detach().clone() for layer in self._layers()}
        if guide.method == "surgery":
            self._hidden = {
                layer.target.name: HiddenWeights(
                    parameter=layer.module.get_parameter("weight"), mask=layer.mask, mask_of=self._surgery
                )
                for layer in self._layers()
            }

    def start(self) -> None:
        """Nothing is masked at first."""

    def before_step(self) -> None:
        """Between the backward pass and the step of the optimiser, which calls it."""
        super().before_step()
        if self._thinning is not None and not self._final:
            self._thinning.before_step([layer.module.get_parameter("weight") for layer in self._open()])

    def step(self) -> None:
        """After every step of the optimiser."""
        if self._thinning is not None and not self._final:
            self._thinning.after_step()
        super().step()

    def finish(self) -> None:
        """What is zero stays zero, and layers that did not reach their lower bound are dense again."""
        if self._final:
            return
        # Layers that are restored leave more to the others, which may then gain enough or not.
        while True:
            threshold = 0.0 if self._thinning is not None else self._at_target()[0]
            for layer in self._open():
                weight = self._all_weights(layer)
                layer.weight.data.copy_(weight * (weight.abs() >= threshold * _root_mean_square(weight)))
                layer.mask.copy_(layer.weight != 0)
            if not self._take_in(last=True):
                break
        self._hidden, self._final = {}, True
        hold_optimizer(self.layers, self._optimizer)

    def sparsity(self) -> dict[str, float]:
        """Of each layer that is or was pruned."""
        return {layer.target.name: layer.zero_frac for layer in self._layers()}

    def bounds(self) -> dict[str, GuideBounds]:
        """Of each layer that may be pruned."""
        return {
            name: GuideBounds(lower=layer.lower, upper=layer.upper)
            for name, layer in self._projection.layers.items()
            if layer.lower is not None
        }

    def state(self) -> RegulariserState:
        """What a checkpoint says beside `tensors`."""
        histories = {name: tuple(values) for name, values in self._guide.histories.items()}
        return (
            super()
            .state()
            .model_copy(
                update={
                    "decisions": tuple(self._guide.decisions),
                    "sparsities": histories,
                }
            )
        )

    def restore(self, state: RegulariserState, masks: Mapping[str, Tensor], hidden: Mapping[str, Tensor]) -> None:
        """Go back to a state of the same projection."""
        self._guide.restore(state.decisions, state.sparsities)
        for name in set(self._hidden) - set(self._guide.open_layers):
            del self._hidden[name]
        super().restore(state, masks, hidden)
        done = self._updated / self.options.prune_steps
        self._due_frac = cubic_sparsity(done, final=1.0)

    def keep_dense(self, weights: Mapping[str, Tensor]) -> None:
        """Take the weights that restoring goes back to, by layer; after a resumption the model's are pruned already."""
        for name, dense in self._dense.items():
            dense.copy_(weights[name])

    def _renews_hidden(self) -> bool:
        """Only with the threshold."""
        return False

    @torch.no_grad()
    def _update(self) -> None:
        if self._thinning is None:
            self._steer()
        self._pending_rate, self._updated = 0.0, self._steps
        if self._steps % OBSERVE_EVERY == 0:
            self._take_in(last=False)

    def _steer(self) -> None:
        """Make the zeros that are due by now."""
        _, final = self._at_target()
        before, self._due_frac = self._due_frac, cubic_sparsity(self._steps / self.options.prune_steps, final=1.0)
        due = self._due_frac * final
        if self._method == "l1":
            self._shrink()
            seen = Emergence(emerged_frac=self._zero_frac(), before_frac=before * final, due_frac=due)
            self._strength["l1"] = steer(self._strength["l1"], seen, first=FIRST_STRENGTH)
        else:
            self._threshold = self._threshold_for(lambda zeros: self._mean(zeros) >= due)
            for layer in self._open():
                if self._method == "magnitude":
                    layer.mask.mul_(layer.weight.abs() >= self._threshold * _root_mean_square(layer.weight))
                    apply_masks([layer])
                    hold_optimizer([layer], self._optimizer)
                else:
                    hidden = self._hidden[layer.target.name]
                    hidden.before_step()
                    hidden.after_step(renew=True)

    def _shrink(self) -> None:
        for layer in self._open():
            weight = layer.weight.data
            limit = self._strength["l1"] * layer.target.time_frac * self._pending_rate
            weight.copy_(weight.sign() * (weight.abs() - limit).clamp_min(0.0))

    def _at_target(self) -> tuple[float, float]:
        """The threshold at which the projected time meets the target, and the mean sparsity of open layers there."""
        fixed = self.sparsity()
        found: dict[str, float] = {}

        def met(zeros: Mapping[str, float]) -> bool:
            found.update(zeros)
            return self._projection.time_s({**fixed, **zeros}) <= self._projection.target_s

        threshold = self._threshold_for(met)
        met(self._zeros_at(threshold))
        return threshold, self._mean(found)

    def _threshold_for(self, reached: Callable[[Mapping[str, float]], bool]) -> float:
        """The least threshold whose sparsities reach something; sparsity grows with it."""
        low, high = 0.0, LARGEST_THRESHOLD
        for _ in range(HALVINGS):
            middle = 0.5 * (low + high)
            low, high = (low, middle) if reached(self._zeros_at(middle)) else (middle, high)
        return high

    def _zeros_at(self, threshold: float) -> dict[str, float]:
        found = {}
        for layer in self._open():
            weight = self._all_weights(layer)
            found[layer.target.name] = float((weight.abs() < threshold * _root_mean_square(weight)).double().mean())
        return found

    def _all_weights(self, layer: MaskedLayer) -> Tensor:
        """With those that surgery hides."""
        weight, hidden = layer.weight.detach(), self._hidden.get(layer.target.name)
        return weight if hidden is None else weight + hidden.values

    def _mean(self, zeros: Mapping[str, float]) -> float:
        """Of open layers, by their weights."""
        counts = {layer.target.name: layer.weight.numel() for layer in self._open()}
        return sum(zeros[name] * count for name, count in counts.items()) / max(sum(counts.values()), 1)

    def _zero_frac(self) -> float:
        return self._mean(self.sparsity())

    def _surgery(self, weight: Tensor, mask: Tensor) -> Tensor:
        magnitude, threshold = weight.detach().abs(), self._threshold * _root_mean_square(weight.detach())
        kept = torch.where(magnitude < threshold, torch.zeros_like(mask), mask)
        return torch.where(magnitude > (1.0 + MARGIN) * threshold, torch.ones_like(mask), kept)

    @torch.no_grad()
    def _take_in(self, *, last: bool) -> bool:
        """Let the guide see the sparsities, and do what it decides; whether it decided anything."""
        layers = {layer.target.name: layer for layer in self._layers()}
        decided = self._guide.observe(self.sparsity(), step=self._steps, last=last)
        for decision in decided:
            layer = layers[decision.layer]
            self._hidden.pop(decision.layer, None)
            if decision.action == "restore":
                layer.weight.data.copy_(self._dense[decision.layer])
                layer.mask.fill_(1.0)
                self._optimizer.state.pop(layer.module.get_parameter("weight"), None)
            else:
                layer.mask.copy_(layer.weight != 0)
                hold_optimizer([layer], self._optimizer)
        return bool(decided)

    def _open(self) -> list[MaskedLayer]:
        return [layer for layer in self._layers() if layer.target.name in self._guide.open_layers]

    def _layers(self) -> list[MaskedLayer]:
        return [layer for layer in self.layers if isinstance(layer, MaskedLayer)]


def _element_l1(options: PruneOptions) -> ElementL1:
    return ElementL1(strength=options.esl_strength, threshold=options.esl_threshold, factor=options.esl_factor)


def _root_mean_square(weight: Tensor) -> Tensor:
    """Of the weights that are not zero: of what is left, where nothing returns."""
    return weight.square().sum().div((weight != 0).sum().clamp_min(1)).sqrt()
