"""What a training run leaves behind: its manifest and its history."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

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


OptimizerName = Literal["sgd", "adamw"]
ScheduleName = Literal["cosine", "step"]
AugmentChoice = Literal["data", "none", "shift", "crop_flip"]
Structured = Literal["proximal", "subgradient"]
NmMethod = Literal["sr-ste", "asp"]
GuideMethod = Literal["off", "l1", "magnitude", "surgery", "esl"]


class TrainConfig(_Document):
    """Everything that decides the outcome of training, beside model, data and plan.

    Raises
    ------
    InputError
        If a value is outside its range.
    """

    epochs: int
    batch_size: int = 128
    """Of one step of the optimiser, over all processes and accumulated parts."""
    grad_accumulation: int = 1
    """Parts in which each process computes its share of a batch, to save memory."""
    optimizer: OptimizerName = "sgd"
    learning_rate: float = 0.05
    """Peak of the schedule."""
    momentum: float = 0.9
    """Of SGD (Nesterov); AdamW keeps its usual 0.9 and 0.999."""
    weight_decay: float = 5e-4
    clip_grad: float = 0.0
    """Largest norm of the gradient; 0 does not clip."""
    schedule: ScheduleName = "cosine"
    decay_epochs: float = 30.0
    """Of the step schedule: epochs between two drops of the learning rate."""
    decay_rate: float = 0.1
    """Of the step schedule: factor of each drop."""
    warmup_epochs: float = 0.5
    label_smoothing: float = 0.0
    distillation: float = 0.0
    """Share of the loss that compares the logits with those of the dense model; 0 is off."""
    temperature: float = 4.0
    """Of the distillation."""
    augment: AugmentChoice = "data"
    """"data" is what the data set brings."""
    auto_augment: bool = False
    """AutoAugment's policy for CIFAR-10 after crop and flip."""
    ema_decay: float = 0.0
    """Of the moving average of the weights, which then is what is validated and kept; 0 is off."""
    autocast_bfloat16: bool = False
    channels_last: bool = True
    """For networks with 2-D convolutions."""
    compile: bool = False
    """Run the training step through torch.compile."""
    prune_frac: float = 0.5
    """Share of the epochs in which sparsity grows to the plan; the rest is fine-tuning with fixed masks."""
    group_lasso: float = 1e-3
    """First strength of the group lasso on structured patterns, times sqrt(group size); then steered. 0 is off."""
    structured: Structured = "proximal"
    """How structured patterns shrink: the steered proximal step, or SSL's sub-gradient and threshold."""
    nm: NmMethod = "sr-ste"
    """How N:M masks are found: anew while training with SR-STE, or once from the dense weights (ASP)."""
    sr_ste: float = 2e-4
    """Decay of the weights that an N:M mask hides."""
    guide: GuideMethod = "off"
    """Guided sparsity learning of unstructured layers, and how it makes zeros; off takes the plan's sparsities. "esl"
    does not steer to the plan's target: its zeros follow from the next three."""
    esl_strength: float = 1e-4
    """Of "esl": its L1 penalty's lambda."""
    esl_threshold: float = 1e-4
    """Of "esl": below it, times the factor, weights at rest become zero."""
    esl_factor: float = 10.0
    """Of "esl": see `element_l1`."""
    seed: int = 0

    @model_validator(mode="after")
    def _within_ranges(self) -> Self:
        for name, lowest in (("epochs", 0), ("batch_size", 1), ("grad_accumulation", 1), ("seed", 0)):
            _require(getattr(self, name) >= lowest, name, getattr(self, name), f"at least {lowest}")
        for name in ("learning_rate", "decay_epochs", "temperature", "esl_threshold", "esl_factor"):
            _require(0 < getattr(self, name) < math.inf, name, getattr(self, name), "a finite number above 0")
        for name in ("weight_decay", "warmup_epochs", "group_lasso", "clip_grad", "sr_ste", "esl_strength"):
            _require(0 <= getattr(self, name) < math.inf, name, getattr(self, name), "a finite number of at least 0")
        for name in ("momentum", "label_smoothing", "ema_decay"):
            _require(0 <= getattr(self, name) < 1, name, getattr(self, name), "a number in [0, 1)")
        for name in ("prune_frac", "distillation", "decay_rate"):
            _require(0 <= getattr(self, name) <= 1, name, getattr(self, name), "a number in [0, 1]")
        return self


def make_config(fields: Mapping[str, object]) -> TrainConfig:
    """A configuration from fields by name.

    Raises
    ------
    InputError
        If a field is unknown, or a value of the wrong kind or out of its range.
    """
    try:
        return TrainConfig.model_validate(dict(fields))
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(step) for step in first["loc"])
        raise InputError(
            f"training option {name}: got {first['input']!r}, {first['msg'].lower()}; the options are "
            f"{', '.join(TrainConfig.model_fields)}"
        ) from None


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
    strength: dict[str, float] = {}
    """By planned layer: where its penalty was steered to."""
    duration_s: float


GuideAction = Literal["never", "stop", "restore"]


class GuideDecision(_Document):
    """What the guide decided for one layer, and why."""

    step: int
    """Steps of the optimiser that were done."""
    layer: str
    action: GuideAction
    sparsity: float
    projected_speedup: float | None
    """Of the layer at this sparsity."""
    reason: str


class GuideBounds(_Document):
    """Between which sparsities a layer is worth pruning."""

    lower: float
    """From here on its kernel beats the dense one."""
    upper: float | None
    """Beyond it more zeros gain nothing; None where every zero gains."""


class RegulariserState(_Document):
    """Where the penalties are."""

    steps: int = 0
    """Of the optimiser, that were done."""
    updated: int = 0
    """Steps that were done when the masks were last renewed."""
    final: bool = False
    """Whether the masks are those of the plan, for good."""
    pending_rate: float = 0.0
    """Learning rates summed since the last update of the masks."""
    strength: dict[str, float] = {}
    decisions: tuple[GuideDecision, ...] = ()
    sparsities: dict[str, tuple[float, ...]] = {}
    """What the guide saw of each layer, oldest first."""


class DenseStart(_Document):
    """Accuracy of the weights that training starts from."""

    validation_accuracy_frac: float
    test_accuracy_frac: float


class CheckpointState(_Document):
    """What a checkpoint says beside its tensors (``last.json``, and the header of ``last.safetensors``)."""

    schema_version: Literal[2] = 2
    epoch: int
    """Epochs that are finished; 0 before the first."""
    config: TrainConfig
    data: str
    train_images: int
    assignment_sha256: str
    dense: DenseStart | None
    """None before the first epoch."""
    epochs: tuple[EpochRecord, ...]
    regulariser: RegulariserState = RegulariserState()
    duration_s: float


class TrainingHistory(_Document):
    """``training.json``: the finished run."""

    schema_version: Literal[2] = 2
    config: TrainConfig
    epochs: tuple[EpochRecord, ...]
    decisions: tuple[GuideDecision, ...] = ()
    bounds: dict[str, GuideBounds] = {}
    """By layer that the guide may prune; none without a guide."""
    steps_per_epoch: int | None = None
    """None in histories from before it was recorded."""
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
