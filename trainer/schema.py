"""What a training run leaves behind: its manifest and its history."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, model_validator

from ..kernels.errors import InputError


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RunManifest(_Document):
    """Names what a run was made from (``run.json``)."""

    schema_version: Literal[1] = 1
    created: datetime
    model: str
    """SPEC of the model."""
    data: str
    """SPEC of the data."""
    dense_weights: str | None
    """Path the dense weights came from; a copy lies in the run folder as ``dense.safetensors``."""
    plan_sha256: str


class TrainConfig(_Document):
    """Everything that decides the outcome of training, beside model, data and plan.

    Raises
    ------
    InputError
        If a value is outside its range.
    """

    epochs: int
    batch_size: int = 128
    learning_rate: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.0
    warmup_epochs: float = 0.5
    prune_frac: float = 0.5
    """Share of the epochs in which sparsity grows to the plan; the rest is fine-tuning with fixed masks."""
    group_lasso: float = 1e-3
    """Strength of the group lasso (scaled by sqrt(group size)) while structured patterns are pruned; 0 is off."""
    autocast_bfloat16: bool = False
    compile: bool = False
    """Run the training step through torch.compile."""
    seed: int = 0

    @model_validator(mode="after")
    def _within_ranges(self) -> Self:
        for name, lowest in (("epochs", 0), ("batch_size", 1), ("seed", 0)):
            _require(getattr(self, name) >= lowest, name, getattr(self, name), f"at least {lowest}")
        _require(0 < self.learning_rate < math.inf, "learning_rate", self.learning_rate, "a finite number above 0")
        for name in ("weight_decay", "warmup_epochs", "group_lasso"):
            _require(0 <= getattr(self, name) < math.inf, name, getattr(self, name), "a finite number of at least 0")
        for name in ("momentum", "label_smoothing"):
            _require(0 <= getattr(self, name) < 1, name, getattr(self, name), "a number in [0, 1)")
        _require(0 <= self.prune_frac <= 1, "prune_frac", self.prune_frac, "a number in [0, 1]")
        return self


Phase = Literal["dense", "prune", "finetune"]


class EpochRecord(_Document):
    """One epoch of training (a line of ``training.jsonl``)."""

    epoch: int
    phase: Phase
    learning_rate: float
    """Of its last step."""
    train_loss: float
    validation_loss: float
    validation_accuracy_frac: float
    sparsity: dict[str, float]
    """By planned layer: share of its weights that are zero at the end of the epoch."""
    duration_s: float


class DenseStart(_Document):
    """Accuracy of the weights that training starts from."""

    validation_accuracy_frac: float
    test_accuracy_frac: float


class CheckpointState(_Document):
    """What a checkpoint says beside its tensors (``last.json``, and the header of ``last.safetensors``)."""

    schema_version: Literal[1] = 1
    epoch: int
    """Epochs that are finished; 0 before the first."""
    config: TrainConfig
    data: str
    train_images: int
    assignment_sha256: str
    dense: DenseStart | None
    """None before the first epoch."""
    epochs: tuple[EpochRecord, ...]
    duration_s: float


class TrainingHistory(_Document):
    """``training.json``: the finished run."""

    schema_version: Literal[1] = 1
    config: TrainConfig
    epochs: tuple[EpochRecord, ...]
    dense_validation_accuracy_frac: float | None
    dense_test_accuracy_frac: float
    """Of the model that training started from."""
    validation_accuracy_frac: float
    test_accuracy_frac: float
    """Of the model that carries the plan's masks."""
    classes: int
    duration_s: float


def _require(holds: bool, name: str, seen: object, allowed: str) -> None:
    if not holds:
        raise InputError(f"training option {name}: got {seen!r}, allowed is {allowed}")
