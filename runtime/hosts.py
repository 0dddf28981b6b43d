"""The ways torch can run a network around our kernels; dense and planned networks get the same ones."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from .schema import Host

HOSTS: tuple[Host, ...] = ("eager", "channels_last", "compile")
"""Those that run swapped layers too."""


def hosts_here() -> tuple[Host, ...]:
    """With OpenVINO where it is installed."""
    return (*HOSTS, "openvino") if find_spec("openvino") is not None else HOSTS


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
    if host == "openvino":
        return _openvino_call(model, example)
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


def _openvino_call(model: nn.Module, example: Tensor) -> Callable[[], Tensor]:
    """For dense networks alone: OpenVINO knows no operator of ours."""
    openvino = import_module("openvino")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # notes on torch's own internals, nothing a user could act on
        # In float32: OpenVINO rounds by itself where it is told to, and numpy has no bfloat16.
        converted = openvino.convert_model(torch.export.export(model.float(), (_float(example),), strict=False))
    compiled = openvino.compile_model(
        converted,
        "CPU",
        {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "INFERENCE_PRECISION_HINT": "bf16" if example.dtype == torch.bfloat16 else "f32",
        },
    )
    request, given = compiled.create_infer_request(), _float(example).numpy()

    def run() -> Tensor:
        return torch.from_numpy(request.infer([given], share_inputs=True, share_outputs=True)[0])

    return run


def _float(example: Tensor) -> Tensor:
    return example.float() if example.is_floating_point() else example
