"""What takes the steps of training: a network with its optimiser, its masks and its moving average.

Channels that masks hold at zero are cut out of it while pruning goes on: the full network's regulariser keeps deciding,
on the full weights, and a smaller network takes the steps between two of its decisions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from .ema import MovingAverage
from .masked_width import MaskedWidth
from .optimizer import make_optimizer, optimizer_tensors, restore_optimizer
from .regulariser import Regulariser
from .schema import TrainConfig
from .shrink import Smaller, cut_copy


class Held(Protocol):
    """What a trainee is held to."""

    def step(self) -> None:
        """After every step of the optimiser."""

    def masks(self) -> Mapping[nn.Parameter, Tensor]:
        """By parameter: the factor, 0 or 1, that holds it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trainee:
    """Attributes are as in `Learner`; the average is None where none is made."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    regulariser: Held
    average: MovingAverage | None


class ShrunkTrainee:
    """A trainee in the place of a larger one, to whose masks it is held and to which it gives back what it learnt.

    Parameters
    ----------
    full : Trainee
    regulariser : Regulariser
        That of the full one: it goes on deciding on the full weights.
    cut : Smaller
        The network that takes the steps.

    Attributes
    ----------
    small : Trainee
        Takes the steps.
    """

    def __init__(self, full: Trainee, regulariser: Regulariser, cut: Smaller, *, config: TrainConfig) -> None:
        self._full, self._regulariser, self._cut = full, regulariser, cut
        self._living = _living(regulariser)
        self._masks: dict[nn.Parameter, Tensor] = {}
        optimizer = make_optimizer(cut.model, config)
        optimizer.register_step_pre_hook(lambda *_: self._hold_gradients())
        average = None if full.average is None else MovingAverage(cut.model, decay=config.ema_decay)
        self.small = Trainee(model=cut.model, optimizer=optimizer, regulariser=self, average=average)
        self._take()

    def fits(self) -> bool:
        """Whether all that masks hold at zero by now is cut out."""
        return self._living == _living(self._regulariser)

    def step(self) -> None:
        """After every step of the smaller one's optimiser: where masks are due, the full one renews them."""
        if not self._regulariser.pruning:
            return
        for group in self._full.optimizer.param_groups:
            group["lr"] = self.small.optimizer.param_groups[0]["lr"]
        due = self._regulariser.renews_next
        if due:
            self.give_back()
        self._regulariser.step()
        if due:
            self._take()

    def masks(self) -> Mapping[nn.Parameter, Tensor]:
        """Of the parameters that are not cut out."""
        return self._masks

    @torch.no_grad()
    def give_back(self) -> None:
        """Weights, statistics, the optimiser's memory and the average, to their places in the larger one."""
        small, full, cut = self.small, self._full, self._cut
        tensors = full.model.state_dict()
        for name, value in small.model.state_dict().items():
            cut.put(name, tensors[name], value)
        parameters = dict(full.model.named_parameters())
        for path, value in optimizer_tensors(small.model, small.optimizer).items():
            key, _, name = path.partition("/")
            state = full.optimizer.state[parameters[name]]
            if value.shape == cut.places[name].shape:
                state.setdefault(key, torch.zeros_like(parameters[name]))
                cut.put(name, state[key], value)
            else:
                state[key] = value.clone()
        if small.average is not None and full.average is not None:
            averages = full.average.tensors()
            for name, value in small.average.tensors().items():
                cut.put(name, averages[name], value)
            full.average.restore(averages, updates=small.average.updates)

    @torch.no_grad()
    def _take(self) -> None:
        """The same from the larger one, and its masks."""
        small, full, cut = self.small, self._full, self._cut
        tensors, parameters = full.model.state_dict(), dict(full.model.named_parameters())
        for name, value in small.model.state_dict().items():
            value.copy_(cut.take(name, tensors[name]))
        remembered = {}
        for path, value in optimizer_tensors(full.model, full.optimizer).items():
            name = path.partition("/")[2]
            if name in cut.places:
                remembered[path] = cut.take(name, value) if value.shape == parameters[name].shape else value
        restore_optimizer(small.model, small.optimizer, remembered)
        if small.average is not None and full.average is not None:
            averages = full.average.tensors()
            taken = {name: cut.take(name, averages[name]) for name in cut.places}
            small.average.restore(taken, updates=full.average.updates)
        masks = self._regulariser.masks()
        self._masks = {
            parameter: cut.take(name, masks[parameters[name]].expand_as(parameters[name]))
            for name, parameter in small.model.named_parameters()
            if parameters[name] in masks
        }

    def _hold_gradients(self) -> None:
        for parameter, mask in self._masks.items():
            if parameter.grad is not None:
                parameter.grad.mul_(mask)


def shrink(full: Trainee, regulariser: Regulariser, config: TrainConfig) -> ShrunkTrainee | None:
    """A trainee without the channels and branches that masks hold at zero by now.

    None where there are none, or they cannot be cut; while pruning goes on also where more than masks acts on every
    step, or every cut would be compiled anew.
    """
    if regulariser.pruning and (config.compile or not regulariser.masks_alone):
        return None
    widths = [layer for layer in regulariser.layers if isinstance(layer, MaskedWidth)]
    if all(bool(width.mask.all()) for width in widths):
        return None
    cut = cut_copy(full.model, widths)
    return None if cut is None else ShrunkTrainee(full, regulariser, cut, config=config)


def _living(regulariser: Regulariser) -> tuple[int, ...]:
    """Units of each width group that are left."""
    return tuple(int(layer.mask.sum()) for layer in regulariser.layers if isinstance(layer, MaskedWidth))
