"""The ways torch can run a network around our kernels; dense and planned networks get the same ones.

On a GPU a network is launched operation by operation, or recorded once as a CUDA graph and replayed: then neither
Python nor the driver spends time on each operation, which is most of the time of a small batch.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from ..kernels.errors import SparseplanWarning
from ..kernels.spec import Device
from ..profiles.cuda_timing import WARM_UPS, Gpu
from ..profiles.stopwatch import Stopwatch
from ..trainer.evaluate import device_of
from .schema import Host

HOSTS: tuple[Host, ...] = ("eager", "channels_last", "compile")
"""Those of a CPU that run swapped layers too."""
GPU_HOSTS: tuple[Host, ...] = ("channels_last", "graph", "compile", "compile_graph")
RECORDED: Mapping[Host, Host] = {"graph": "channels_last", "compile_graph": "compile"}
"""What each way of replaying has recorded."""


def hosts_here(device: Device = "cpu") -> tuple[Host, ...]:
    """The ways of a device; on the CPU with OpenVINO where it is installed."""
    if device == "cuda":
        return GPU_HOSTS
    return (*HOSTS, "openvino") if find_spec("openvino") is not None else HOSTS


def host_call(model: nn.Module, example: Tensor, *, host: Host) -> Callable[[], Tensor]:
    """A call without arguments that runs the network once on the example, in a way that replays nothing.

    Parameters
    ----------
    model : nn.Module
        In evaluation mode; not changed.
    example : Tensor
        [N, C, H, W], on the model's device.
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


def network_calls(
    model: nn.Module, example: Tensor, hosts: Sequence[Host], watch: Stopwatch
) -> dict[Host, Callable[[], Tensor]]:
    """Calls that run a network once on the example, on the device of a stopwatch; ways that cannot are left out.

    Parameters
    ----------
    model : nn.Module
        In evaluation mode; not changed.
    example : Tensor
        [N, C, H, W].
    """
    model, example = on_device(model, watch.device), example.to(watch.device)
    launched: dict[Host, Callable[[], Tensor]] = {}
    calls: dict[Host, Callable[[], Tensor]] = {}
    for host in hosts:
        base = RECORDED.get(host, host)
        if base not in launched:
            launched[base] = host_call(model, example, host=base)
        call = launched[base] if base == host or watch.gpu is None else recorded(launched[base], watch.gpu)
        if call is not None:
            calls[host] = call
    return calls


def on_device(model: nn.Module, device: torch.device) -> nn.Module:
    """The model itself where it lies on the device, a copy there elsewhere."""
    return model if device_of(model) == device else copy.deepcopy(model).to(device)


def recorded(call: Callable[[], Tensor], gpu: Gpu) -> Callable[[], Tensor] | None:
    """Record a call as a graph; None, with a warning, where some operation of it cannot be recorded.

    Returns
    -------
    callable
        Replays the graph; the tensor that it gives is the same one each time, overwritten by the next replay.
    """
    given: list[Tensor] = []

    def once() -> None:
        given[:] = [call()]

    # Everything that waits for the device, compiling and choosing algorithms, must lie behind.
    for _ in range(WARM_UPS):
        once()
    gpu.wait()
    try:
        replay = gpu.graph(once, 1)
    except RuntimeError as failure:
        line = (str(failure).splitlines() or [""])[0]
        warnings.warn(f"a network was not timed as a CUDA graph: {line}", SparseplanWarning, stacklevel=2)
        return None

    def run() -> Tensor:
        replay()
        return given[0]

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
