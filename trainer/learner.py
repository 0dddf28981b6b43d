"""A model in training: one epoch of steps, its masks held, its state in and out."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..kernels.errors import InputError, UnsupportedError
from .assignment import Assignment
from .batches import derived_seed, steps_per_epoch, training_batches
from .data import DataSplits
from .evaluate import device_of
from .masks import hold_gradients, hold_momentum, masked_layers, update_masks
from .schedule import cosine_learning_rate, pruning_epochs
from .schema import CheckpointState, Phase, TrainConfig
from .store import Checkpoint
from .weights import fill_model

MASK_EVERY = 32
"""Steps between two updates of the masks; sorting all weights costs up to half a step."""

_DATA, _MODEL = 0, 1
"""Streams of random numbers: order and augmentation, and the model's own (dropout)."""


Loss = Callable[[Tensor, Tensor], Tensor]
"""From images [N, C, H, W] and labels [N] to the mean loss."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochOutcome:
    """Mean training loss of an epoch, and the learning rate of its last step."""

    loss: float
    learning_rate: float


class Learner:
    """Owns the masks and the optimiser of a model, which it changes in place.

    Raises
    ------
    InputError
        If the model lacks a layer of the assignment.
    UnsupportedError
        If a pattern is not one of weights (SAS).
    """

    def __init__(self, model: nn.Module, data: DataSplits, *, assignment: Assignment, config: TrainConfig) -> None:
        self.model, self.data, self.config = model, data, config
        self._device = device_of(model)
        self._channels_last = any(isinstance(module, nn.Conv2d) for module in model.modules())
        if self._channels_last:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.layers = masked_layers(model, assignment)
        self._optimizer = _sgd(model, config)
        self._loss = _compiled(self._eager_loss) if config.compile else self._eager_loss
        self._steps = steps_per_epoch(data, config.batch_size)
        self._prune_epochs = pruning_epochs(config.epochs, config.prune_frac) if assignment else 0

    def phase(self, epoch: int) -> Phase:
        """Phase of an epoch, counted from 1."""
        if not self.layers:
            return "dense"
        return "prune" if epoch <= self._prune_epochs else "finetune"

    def run_epoch(self, epoch: int, *, report: Callable[[int, int], None]) -> EpochOutcome:
        """Train for one epoch.

        Parameters
        ----------
        epoch : int
            From 1; decides the data's order, the augmentation, the learning rate and the sparsity.
        report : callable
            Called with the steps done and their number after every step.

        Raises
        ------
        InputError
            If the loss is not finite.
        """
        if epoch == 1 and self._prune_epochs == 0:
            self.mask_now()
        batches = training_batches(
            self.data, batch_size=self.config.batch_size, generator=self._generator(epoch), device=self._device
        )
        total, pending_rate, rate = 0.0, 0.0, 0.0
        self.model.train()
        with torch.random.fork_rng(devices=[self._device] if self._device.type == "cuda" else []):
            torch.manual_seed(derived_seed(self.config.seed, epoch, stream=_MODEL))
            for step, (images, labels) in enumerate(batches, start=1):
                rate = self._learning_rate((epoch - 1) * self._steps + step - 1)
                total += self._step(images, labels, rate=rate, where=f"epoch {epoch}, step {step} of {self._steps}")
                pending_rate += rate
                if self.phase(epoch) == "prune" and (step % MASK_EVERY == 0 or step == self._steps):
                    done = ((epoch - 1) * self._steps + step) / (self._prune_epochs * self._steps)
                    self._update_masks(done_frac=done, lasso=pending_rate * self.config.group_lasso)
                    pending_rate = 0.0
                report(step, self._steps)
        return EpochOutcome(loss=total / self._steps, learning_rate=rate)

    def mask_now(self) -> None:
        """Take the weights to the plan's sparsity at once."""
        self._update_masks(done_frac=1.0, lasso=0.0)

    def checkpoint(self, state: CheckpointState) -> Checkpoint:
        """The present state of training."""
        momentum = {
            name: self._optimizer.state[parameter]["momentum_buffer"]
            for name, parameter in self.model.named_parameters()
            if self._optimizer.state[parameter].get("momentum_buffer") is not None
        }
        masks = {layer.target.name: layer.mask.bool() for layer in self.layers}
        return Checkpoint(state=state, model=self.model.state_dict(), momentum=momentum, masks=masks)

    def restore(self, checkpoint: Checkpoint, *, source: str) -> None:
        """Go back to a checkpoint of the same model and assignment.

        Raises
        ------
        InputError
            If its tensors do not fit the model; `source` begins the message.
        """
        fill_model(self.model, checkpoint.model, source=source)
        for layer in self.layers:
            layer.mask.copy_(checkpoint.masks[layer.target.name])
        for name, parameter in self.model.named_parameters():
            if name in checkpoint.momentum:
                buffer = torch.empty_like(parameter, requires_grad=False).copy_(checkpoint.momentum[name])
                self._optimizer.state[parameter]["momentum_buffer"] = buffer

    def _generator(self, epoch: int) -> torch.Generator:
        return torch.Generator().manual_seed(derived_seed(self.config.seed, epoch, stream=_DATA))

    def _learning_rate(self, step: int) -> float:
        return cosine_learning_rate(
            step,
            total_steps=self.config.epochs * self._steps,
            warmup_steps=round(self.config.warmup_epochs * self._steps),
            peak=self.config.learning_rate,
        )

    def _step(self, images: Tensor, labels: Tensor, *, rate: float, where: str) -> float:
        """One step of the optimiser; the loss before it."""
        if self._channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        loss = self._loss(images, labels)
        value = loss.item()
        if not math.isfinite(value):
            raise InputError(
                f"training diverged: the loss is {value} at {where}; the checkpoint of the epoch before is kept; "
                f"start a new run with a learning rate below {self.config.learning_rate:g}"
            )
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        hold_gradients(self.layers)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        return value

    def _eager_loss(self, images: Tensor, labels: Tensor) -> Tensor:
        with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self.config.autocast_bfloat16):
            outputs = self.model(images)
        smoothing = self.config.label_smoothing
        return nn.functional.cross_entropy(outputs.float(), labels, label_smoothing=smoothing)

    def _update_masks(self, *, done_frac: float, lasso: float) -> None:
        update_masks(self.layers, done_frac=done_frac, lasso=lasso)
        hold_momentum(self.layers, self._optimizer)


def _compiled(loss: Loss) -> Loss:
    """The same through torch.compile; a failure to compile becomes an `UnsupportedError`."""
    from torch._dynamo.exc import TorchDynamoException

    compiled = torch.compile(loss, dynamic=False)

    def compiled_or_refused(images: Tensor, labels: Tensor) -> Tensor:
        try:
            return compiled(images, labels)
        except TorchDynamoException as error:
            reason = str(error).partition("\n")[0]
            raise UnsupportedError(
                f"torch.compile cannot compile the training step here: {reason}; train with compile off"
            ) from None

    return compiled_or_refused


def _sgd(model: nn.Module, config: TrainConfig) -> torch.optim.SGD:
    """SGD that spares biases and normalisation layers (all one-dimensional parameters) the weight decay."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in trained if parameter.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [parameter for parameter in trained if parameter.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(
        groups, lr=config.learning_rate, momentum=config.momentum, nesterov=config.momentum > 0, foreach=True
    )
