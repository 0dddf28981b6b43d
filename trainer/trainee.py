"""What takes the steps of training: a network with its optimiser, its masks and its moving average."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from .ema import MovingAverage
from .masked_width import MaskedWidth
from .masks import MaskedLayer
from .optimizer import make_optimizer, optimizer_tensors, restore_optimizer
from .regulariser import PruneOptions, Regulariser
from .schema import RegulariserState, TrainConfig
from .shrink import Smaller, cut_copy


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trainee:
    """Attributes are as in `Learner`; the average is None where none is made."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    regulariser: Regulariser
    average: MovingAverage | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ShrunkTrainee:
    """A trainee in the place of a larger one, to which it gives back what it learnt."""

    small: Trainee
    full: Trainee
    cut: Smaller

    @torch.no_grad()
    def give_back(self) -> None:
        """Weights, statistics, the optimiser's memory and the average, to their places in the larger one."""
        small, full, cut = self.small, self.full, self.cut
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


def shrink(full: Trainee, config: TrainConfig) -> ShrunkTrainee | None:
    """A trainee without the channels and branches that the masks, which must be final, hold at zero.

    None where there are none, or they cannot be cut.
    """
    widths = [layer for layer in full.regulariser.layers if isinstance(layer, MaskedWidth)]
    cut = cut_copy(full.model, widths) if widths else None
    if cut is None:
        return None
    optimizer = make_optimizer(cut.model, config)
    parameters = dict(full.model.named_parameters())
    remembered = {}
    for path, value in optimizer_tensors(full.model, full.optimizer).items():
        name = path.partition("/")[2]
        if name in cut.places:
            remembered[path] = cut.take(name, value) if value.shape == parameters[name].shape else value
    restore_optimizer(cut.model, optimizer, remembered)
    average = None
    if full.average is not None:
        average = MovingAverage(cut.model, decay=config.ema_decay)
        taken = {name: cut.take(name, full.average.tensors()[name]) for name in cut.places}
        average.restore(taken, updates=full.average.updates)
    small = Trainee(
        model=cut.model, optimizer=optimizer, regulariser=_held(full.regulariser, cut, optimizer), average=average
    )
    return ShrunkTrainee(small=small, full=full, cut=cut)


def _held(full: Regulariser, cut: Smaller, optimizer: torch.optim.Optimizer) -> Regulariser:
    """The masks that skip in what the widths left."""
    layers = [
        layer for layer in full.layers if isinstance(layer, MaskedLayer) and f"{layer.target.name}.weight" in cut.places
    ]
    masks = {layer.target.name: cut.take(f"{layer.target.name}.weight", layer.mask) for layer in layers}
    targets = tuple(layer.target for layer in layers)
    held = Regulariser(cut.model, targets, optimizer, options=PruneOptions(prune_steps=0))
    held.restore(RegulariserState(final=True), masks, {})
    return held
