"""What a trained network executes and stores."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Multiply-adds of one image that are not with a zero, weights that are not zero, and bytes of those in float32."""

    multiply_adds: float
    parameters: int
    weight_bytes: int


def count_work(model: nn.Module, example: Tensor) -> Work:
    """Count by running one image; a layer under SAS multiplies one of its `slots` weights with each activation."""
    done: list[float] = []

    def note(module: nn.Module, _: object, output: Tensor) -> None:
        weight = module.get_parameter("weight")
        positions = output[0].numel() / weight.shape[0]
        done.append(positions * float((weight != 0).sum()) / getattr(module, "slots", 1))

    hooks = [
        module.register_forward_hook(note)
        for module in model.modules()
        if any(name == "weight" and parameter.dim() > 1 for name, parameter in module.named_parameters(recurse=False))
    ]
    was_training = model.training
    with torch.inference_mode():
        model.eval()(example[:1])
    model.train(was_training)
    for hook in hooks:
        hook.remove()
    parameters = sum(int((parameter != 0).sum()) for parameter in model.parameters())
    return Work(multiply_adds=sum(done), parameters=parameters, weight_bytes=4 * parameters)
