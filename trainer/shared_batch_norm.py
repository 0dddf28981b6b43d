"""Batch-norm whose statistics are those of the batch over all processes, so that their number changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@contextmanager
def shared_batch_norm(model: nn.Module, *, device: torch.device) -> Iterator[None]:
    """Let every batch-norm of a model see the whole batch for a while; parameters and buffers stay the same objects.

    On GPUs this is torch's own `SyncBatchNorm`, which refuses the CPU.
    """
    kind = nn.SyncBatchNorm if device.type == "cuda" else _SharedBatchNorm
    found = [
        (module, name, child)
        for module in model.modules()
        for name, child in module.named_children()
        if isinstance(child, _BATCH_NORMS)
    ]
    for module, name, child in found:
        shared = kind(child.num_features, eps=child.eps, momentum=child.momentum, affine=child.affine)
        shared._parameters, shared._buffers = child._parameters, child._buffers
        shared.track_running_stats = child.track_running_stats
        shared.train(child.training)
        setattr(module, name, shared)
    try:
        yield
    finally:
        for module, name, child in found:
            child.train(getattr(module, name).training)
            setattr(module, name, child)


class _SharedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """The formula of torch's batch-norm on sums over all processes; their gradients flow back to all of them."""

    def _check_input_dim(self, input: Tensor) -> None:
        pass

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        axes = [axis for axis in range(input.dim()) if axis != 1]
        values = input.float()
        count = values.new_tensor([float(values.numel() // values.shape[1])])
        sums = all_reduce(torch.cat([values.sum(axes), values.square().sum(axes), count]))
        channels = values.shape[1]
        mean = sums[:channels] / sums[-1]
        variance = sums[channels:-1] / sums[-1] - mean.square()
        self._remember(mean.detach(), variance.detach(), float(sums[-1].detach()))
        shape = [1, -1] + [1] * (input.dim() - 2)
        scale = torch.rsqrt(variance.clamp_min(0.0) + self.eps)
        shift = -mean * scale
        if self.affine:
            scale, shift = scale * self.weight, shift * self.weight + self.bias
        return (values * scale.view(shape) + shift.view(shape)).to(input.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor, count: float) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        share = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance * count / max(count - 1.0, 1.0), share)
