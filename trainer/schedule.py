"""Learning rate and sparsity as functions of the training step."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .schema import TrainConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class LearningRate:
    """The learning rate of each step: linear warm-up to the peak, then half a cosine to zero, or drops.

    The first step after the warm-up runs at the peak; a warm-up is cut to half of all steps, so that short runs reach
    it too. Drops count from the first step, the warm-up included, as in torchvision's and timm's recipes.

    Attributes
    ----------
    drop_steps : int or None
        Steps between two drops by `drop_factor`; None is the cosine.

    References
    ----------
    Loshchilov and Hutter, "SGDR: Stochastic gradient descent with warm restarts", ICLR 2017, equation 5.
    """

    total_steps: int
    warmup_steps: int
    peak: float
    drop_steps: int | None = None
    drop_factor: float = 0.1

    def __call__(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        warmup = min(self.warmup_steps, self.total_steps // 2)
        if step < warmup:
            return self.peak * (step + 1) / (warmup + 1)
        if self.drop_steps is not None:
            return self.peak * self.drop_factor ** (step // self.drop_steps)
        done_frac = (step - warmup) / (self.total_steps - warmup)
        return self.peak * 0.5 * (1.0 + math.cos(math.pi * done_frac))


def learning_rate_of(config: TrainConfig, *, steps_per_epoch: int) -> LearningRate:
    """The schedule that a configuration names."""
    return LearningRate(
        total_steps=config.epochs * steps_per_epoch,
        warmup_steps=round(config.warmup_epochs * steps_per_epoch),
        peak=config.learning_rate,
        drop_steps=max(1, round(config.decay_epochs * steps_per_epoch)) if config.schedule == "step" else None,
        drop_factor=config.decay_rate,
    )


def pruning_epochs(epochs: int, prune_frac: float) -> int:
    """Epochs of the pruning phase; at least one epoch of fine-tuning follows it.

    0 means that the masks are applied at once before the first epoch.
    """
    return max(0, min(epochs - 1, round(prune_frac * epochs)))


def cubic_sparsity(done_frac: float, *, final: float) -> float:
    """Sparsity after a share of the pruning phase: fast at first, where there is most to spare.

    Parameters
    ----------
    done_frac : float
        Share of the pruning phase that is over, in [0, 1].
    final : float
        Sparsity at its end, in [0, 1].

    References
    ----------
    Zhu and Gupta, "To prune, or not to prune", 2017, equation 1 (starting from a dense layer).
    """
    return final * (1.0 - (1.0 - done_frac) ** 3)
