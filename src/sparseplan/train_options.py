"""The options of ``sparseplan train`` that make up a recipe, named as timm and torchvision name theirs."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeOption:
    """An option and the field of `TrainConfig` that it sets.

    Attributes
    ----------
    value : object, optional
        What a flag without an argument sets.
    """

    flags: tuple[str, ...]
    field: str
    text: str
    kind: Callable[[str], object] = float
    choices: tuple[str, ...] | None = None
    metavar: str | None = None
    value: object = None


def _number(flag: str, field: str, text: str, *others: str) -> RecipeOption:
    return RecipeOption(flags=(flag, *others), field=field, text=text, metavar="X")


def _count(flag: str, field: str, text: str) -> RecipeOption:
    return RecipeOption(flags=(flag,), field=field, text=text, kind=int, metavar="N")


def _choice(flag: str, field: str, text: str, *choices: str) -> RecipeOption:
    return RecipeOption(flags=(flag,), field=field, text=text, kind=str, choices=choices)


def _flag(flag: str, field: str, text: str, *, value: object = True) -> RecipeOption:
    return RecipeOption(flags=(flag,), field=field, text=text, value=value)


GUIDES = ("off", "l1", "magnitude", "surgery", "esl")
RECIPE = (
    _count("--epochs", "epochs", "0 prunes without training (10)"),
    _count("--batch-size", "batch_size", "of one step, over all processes (128)"),
    _count("--grad-accum-steps", "grad_accumulation", "parts of a batch, to save memory (1)"),
    _choice("--opt", "optimizer", "optimiser (sgd)", "sgd", "adamw"),
    _number("--lr", "learning_rate", "peak of the learning rate (0.05)", "--learning-rate"),
    _number("--momentum", "momentum", "of sgd (0.9)"),
    _number("--weight-decay", "weight_decay", "spares biases and norms (5e-4)"),
    _number("--clip-grad", "clip_grad", "largest norm of the gradient (0: any)"),
    _choice("--sched", "schedule", "of the learning rate (cosine)", "cosine", "step"),
    _number("--decay-epochs", "decay_epochs", "with --sched step: epochs between drops (30)"),
    _number("--decay-rate", "decay_rate", "with --sched step: factor of a drop (0.1)"),
    _number("--warmup-epochs", "warmup_epochs", "linear warm-up (0.5)"),
    _number("--smoothing", "label_smoothing", "of labels (0)"),
    _number(
        "--kd-alpha", "distillation", "share of the loss that follows the dense model (0.5 with --weights, else 0)"
    ),
    _number("--kd-temperature", "temperature", "of the distillation (4)"),
    _choice("--augment", "augment", "crops and flips (as the data bring)", "data", "none", "shift", "crop_flip"),
    _flag("--auto-augment", "auto_augment", "AutoAugment's policy for CIFAR-10"),
    _number("--model-ema-decay", "ema_decay", "validate and keep a moving average of the weights (0: off)"),
    _flag("--amp", "autocast_bfloat16", "train in bfloat16 where torch.autocast does"),
    _flag("--torchcompile", "compile", "run the step through torch.compile"),
    _flag("--no-channels-last", "channels_last", "keep the memory order of the model", value=False),
    _number("--prune-frac", "prune_frac", "share of the epochs in which zeros grow (0.5)"),
    _number("--group-lasso", "group_lasso", "first strength of the penalty, then steered (1e-3; 0: off)"),
    _choice("--structured", "structured", "how groups shrink (proximal)", "proximal", "subgradient"),
    _choice("--nm", "nm", "how n:m masks are found (sr-ste)", "sr-ste", "asp"),
    _number("--sr-ste", "sr_ste", "decay of the weights that n:m masks hide (2e-4)"),
    _choice("--guide", "guide", "prune single weights to the target speed, by this method (off)", *GUIDES),
    _number("--esl-lambda", "esl_strength", "with --guide esl: strength of its L1 penalty, not steered (1e-4)"),
    _number("--esl-threshold", "esl_threshold", "with --guide esl: of weights that change fast (1e-4)"),
    _number("--esl-factor", "esl_factor", "with --guide esl: times the threshold, of weights at rest (10)"),
    _count("--seed", "seed", "of data order, augmentation and dropout (0)"),
)


def add_recipe(parser: argparse.ArgumentParser) -> None:
    """Add the options, in a group of their own; those that are not given stay None."""
    group = parser.add_argument_group("recipe")
    for option in RECIPE:
        if option.value is not None:
            group.add_argument(
                *option.flags, dest=option.field, action="store_const", const=option.value, help=option.text
            )
        else:
            group.add_argument(
                *option.flags,
                dest=option.field,
                type=option.kind,
                choices=option.choices,
                metavar=option.metavar,
                help=option.text,
            )


def recipe_of(options: argparse.Namespace) -> dict[str, object]:
    """The fields of `TrainConfig` that were given."""
    given = {option.field: getattr(options, option.field) for option in RECIPE}
    return {field: value for field, value in given.items() if value is not None}
