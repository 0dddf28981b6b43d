"""Learning rate and sparsity as functions of the training step."""

from __future__ import annotations

import math


def cosine_learning_rate(step: int, *, total_steps: int, warmup_steps: int, peak: float) -> float:
    """Learning rate of a step: linear warm-up to `peak`, then half a cosine towards zero.

    Parameters
    ----------
    step : int
        From 0; the first step after the warm-up runs at `peak`.
    warmup_steps : int
        Cut to half of `total_steps`, so that short runs still reach the peak.

    References
    ----------
    Loshchilov and Hutter, "SGDR: Stochastic gradient descent with warm restarts", ICLR 2017, equation 5.
    """
    warmup_steps = min(warmup_steps, total_steps // 2)
    if step < warmup_steps:
        return peak * (step + 1) / (warmup_steps + 1)
    done_frac = (step - warmup_steps) / (total_steps - warmup_steps)
    return peak * 0.5 * (1.0 + math.cos(math.pi * done_frac))


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
