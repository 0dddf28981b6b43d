"""A model in training: one epoch of steps, its masks held, its state in and out."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..kernels.errors import InputError, UnsupportedError
from .assignment import Assignment
from .batches import Recipe, derived_seed, steps_per_epoch, training_batches
from .data import DataSplits
from .distil import distillation_loss
from .ema import MovingAverage
from .evaluate import device_of
from .guided import GuidedRegulariser, GuideOptions
from .optimizer import make_optimizer, optimizer_tensors, restore_optimizer
from .processes import ALONE, Processes
from .regulariser import PruneOptions, Regulariser
from .schedule import learning_rate_of, pruning_epochs
from .schema import CheckpointState, Phase, TrainConfig
from .store import Checkpoint
from .trainee import ShrunkTrainee, Trainee, shrink
from .weights import fill_model

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

    Once masks hold channels at zero, a copy without these takes the steps (`shrink`); every epoch may cut more.

    Parameters
    ----------
    teacher : nn.Module, optional
        Frozen dense model, for `TrainConfig.distillation`.
    guide : GuideOptions, optional
        Prune to its target time instead of to the sparsities of the assignment.

    Raises
    ------
    InputError
        If the model lacks a layer of the assignment.
    UnsupportedError
        If a pattern is not one of weights (SAS).
    """

    def __init__(
        self,
        model: nn.Module,
        data: DataSplits,
        *,
        assignment: Assignment,
        config: TrainConfig,
        teacher: nn.Module | None = None,
        guide: GuideOptions | None = None,
        processes: Processes = ALONE,
    ) -> None:
        self.model, self.data, self.config, self.processes = model, data, config, processes
        self._device, self.teacher = device_of(model), teacher
        self._channels_last = config.channels_last and any(isinstance(each, nn.Conv2d) for each in model.modules())
        if self._channels_last:
            for network in (model, teacher):
                if network is not None:
                    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.steps = steps_per_epoch(data, config.batch_size)
        self._prune_epochs = pruning_epochs(config.epochs, config.prune_frac) if assignment else 0
        optimizer = make_optimizer(model, config)
        options = self._prune_options()
        self.regulariser = (
            Regulariser(model, assignment, optimizer, options=options)
            if guide is None
            else GuidedRegulariser(model, optimizer, options=options, guide=guide)
        )
        average = MovingAverage(model, decay=config.ema_decay) if config.ema_decay > 0 else None
        self._learning_rate = learning_rate_of(config, steps_per_epoch=self.steps)
        self._full = Trainee(model=model, optimizer=optimizer, regulariser=self.regulariser, average=average)
        self._shrunk: ShrunkTrainee | None = None
        self._let_train(self._full)

    def phase(self, epoch: int) -> Phase:
        """Phase of an epoch, counted from 1."""
        if not self.regulariser.layers:
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
        if epoch == 1:
            self.regulariser.start()
        if self._shrunk is None or not self._shrunk.fits():
            self._shrunk = shrink(self._full, self.regulariser, self.config) or self._shrunk
            if self._shrunk is not None:
                self._let_train(self._shrunk.small)
        batches = training_batches(
            self.data,
            batch_size=self.config.batch_size,
            generator=torch.Generator().manual_seed(derived_seed(self.config.seed, epoch, stream=_DATA)),
            device=self._device,
            recipe=self._recipe(),
            processes=self.processes,
        )
        total, rate = 0.0, 0.0
        self._trainee.model.train()
        with torch.random.fork_rng(devices=[self._device] if self._device.type == "cuda" else []):
            torch.manual_seed(derived_seed(self.config.seed, epoch, stream=_MODEL))
            for step, (images, labels) in enumerate(batches, start=1):
                rate = self._learning_rate((epoch - 1) * self.steps + step - 1)
                total += self._step(images, labels, rate=rate, where=f"epoch {epoch}, step {step} of {self.steps}")
                report(step, self.steps)
        if self._shrunk is not None:
            self._shrunk.give_back()
        return EpochOutcome(loss=total / self.steps, learning_rate=rate)

    def prune_now(self, refitted: Mapping[str, Tensor]) -> None:
        """Take the weights to the plan's sparsity at once: to refitted ones, or by magnitude where there are none."""
        if refitted:
            self.regulariser.begin_from(refitted)
        else:
            self.regulariser.finish()

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """The model as it is validated and kept: the moving average of its weights, where one is made."""
        average = self._full.average
        if average is None:
            yield
            return
        average.swap()
        try:
            yield
        finally:
            average.swap()

    def checkpoint(self, state: CheckpointState) -> Checkpoint:
        """The present state of training."""
        masks, hidden = self.regulariser.tensors()
        return Checkpoint(
            state=state.model_copy(update={"regulariser": self.regulariser.state()}),
            model=self.model.state_dict(),
            optimizer=optimizer_tensors(self.model, self._full.optimizer),
            masks=masks,
            hidden=hidden,
            average=self._full.average.tensors() if self._full.average is not None else {},
        )

    def restore(self, checkpoint: Checkpoint, *, source: str) -> None:
        """Go back to a checkpoint of the same model and assignment.

        Raises
        ------
        InputError
            If its tensors do not fit the model; `source` begins the message.
        """
        fill_model(self.model, checkpoint.model, source=source)
        self.regulariser.restore(checkpoint.state.regulariser, checkpoint.masks, checkpoint.hidden)
        restore_optimizer(self.model, self._full.optimizer, checkpoint.optimizer)
        if self._full.average is not None:
            self._full.average.restore(checkpoint.average, updates=checkpoint.state.epoch * self.steps)

    def _let_train(self, trainee: Trainee) -> None:
        """Steps are taken by this one from now on."""
        self._trainee = trainee
        self._network = DistributedDataParallel(trainee.model) if self.processes.size > 1 else trainee.model
        self._loss = _compiled(self._eager_loss) if self.config.compile else self._eager_loss

    def _prune_options(self) -> PruneOptions:
        config = self.config
        return PruneOptions(
            prune_steps=self._prune_epochs * self.steps,
            group_lasso=config.group_lasso,
            structured=config.structured,
            nm=config.nm,
            sr_ste=config.sr_ste,
            esl_strength=config.esl_strength,
            esl_threshold=config.esl_threshold,
            esl_factor=config.esl_factor,
        )

    def _recipe(self) -> Recipe:
        chosen = self.config.augment
        augment = self.data.augment if chosen == "data" else chosen
        return Recipe(augment=augment, auto_augment=self.config.auto_augment)

    def _step(self, images: Tensor, labels: Tensor, *, rate: float, where: str) -> float:
        """One step of the optimiser; the loss before it, over all processes."""
        if self._channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        trainee = self._trainee
        trainee.optimizer.zero_grad(set_to_none=True)
        value = self._backward(images, labels)
        if not math.isfinite(value):
            raise InputError(
                f"training diverged: the loss is {value} at {where}; the checkpoint of the epoch before is kept; "
                f"start a new run with a learning rate below {self.config.learning_rate:g}"
            )
        if self.config.clip_grad > 0:
            nn.utils.clip_grad_norm_(trainee.model.parameters(), self.config.clip_grad)
        for group in trainee.optimizer.param_groups:
            group["lr"] = rate
        trainee.optimizer.step()
        trainee.regulariser.step()
        if trainee.average is not None:
            trainee.average.update(trainee.regulariser.masks())
        return value

    def _backward(self, images: Tensor, labels: Tensor) -> float:
        """Gradients of the mean loss over all processes and parts; the loss."""
        whole, count = min(self.config.batch_size, len(self.data.train)), self.config.grad_accumulation
        parts = list(zip(images.chunk(count), labels.chunk(count), strict=True))
        value = torch.zeros((), dtype=torch.float64)
        for number, (some, their) in enumerate(parts, start=1):
            with contextlib.nullcontext() if number == len(parts) else self._without_exchange():
                # DistributedDataParallel takes the mean over processes; parts may differ in size.
                loss = self._loss(some, their) * (len(their) * self.processes.size / whole)
                loss.backward()
            value += loss.item() / self.processes.size
        return float(self.processes.total(value))

    def _without_exchange(self) -> contextlib.AbstractContextManager[None]:
        network = self._network
        return network.no_sync() if isinstance(network, DistributedDataParallel) else contextlib.nullcontext()

    def _eager_loss(self, images: Tensor, labels: Tensor) -> Tensor:
        config = self.config
        with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=config.autocast_bfloat16):
            outputs = self._network(images)
            with torch.no_grad():
                taught = self.teacher(images) if self.teacher is not None and config.distillation > 0 else None
        own = nn.functional.cross_entropy(outputs.float(), labels, label_smoothing=config.label_smoothing)
        if taught is None:
            return own
        learnt = distillation_loss(outputs, taught, temperature=config.temperature)
        return (1.0 - config.distillation) * own + config.distillation * learnt


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
