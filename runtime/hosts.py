"""The ways torch can run a network around our kernels; dense and planned networks get the same ones."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from .schema import Host

HOSTS: tuple[Host, ...] = ("eager", "channels_last", "compile")


def host_call(model: nn.Module, example: Tensor, *, host: Host) -> Callable[[], Tensor]:
    """A call without arguments that runs the network once on the example.

    Parameters
    ----------
    model : nn.Module
        In evaluation mode; not changed.
    example : Tensor
        [N, C, H, W].
    """
    model = copy.deepcopy(model).eval()
    if host != "eager":
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        example = example.contiguous(memory_format=torch.channels_last) if example.dim() == 4 else example
    if host == "compile":
        return _compiled_call(model, example)

    def run() -> Tensor:
        with torch.inference_mode():
            result: Tensor = model(example)
            return result

    return run


def _compiled_call(model: nn.Module, example: Tensor) -> Callable[[], Tensor]:
    from torch._inductor import config

    compiled = torch.compile(model)

    def run() -> Tensor:
        with torch.no_grad():
            result: Tensor = compiled(example)
            return result

    # Freezing turns weights into constants, so that oneDNN may reorder them once: torch's fastest CPU path.
    with config.patch(freezing=True):
        run()
    return run
