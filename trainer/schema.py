"""What a training run leaves behind: its manifest and its history."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict


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
    """Everything that decides the outcome of training, beside model, data and plan."""

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
    seed: int = 0


class EpochRecord(_Document):
    """One epoch of training (a line of ``training.jsonl``)."""

    epoch: int
    phase: Literal["dense", "prune", "finetune"]
    learning_rate: float
    train_loss: float
    validation_loss: float
    validation_accuracy_frac: float
    sparsity: dict[str, float]
    """By planned layer: share of its weights that are zero at the end of the epoch."""
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
