"""Batch norms as they are once a pruned network's statistics have been measured anew."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

_BatchNorm = nn.modules.batchnorm._BatchNorm


@contextmanager
def batch_statistics(model: nn.Module) -> Iterator[None]:
    """Let batch norms take mean and variance from the batch at hand, and leave their own as they are.

    Training, and its form without epochs, measure the statistics of a pruned network anew. Judged with those of the
    dense network, what removes much of a channel would seem to cost far more than it does after that.
    """
    norms = [each for each in model.modules() if isinstance(each, _BatchNorm) and each.running_mean is not None]
    modes = [(each.training, each.track_running_stats) for each in norms]
    for each in norms:
        each.training, each.track_running_stats = True, False
    try:
        yield
    finally:
        for each, (training, tracks) in zip(norms, modes, strict=True):
            each.training, each.track_running_stats = training, tracks
