"""``sparseplan.load``: a planned network, ready to run, from a run folder or an exported file."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from ..kernels.errors import InputError
from ..kernels.keep_memory import keep_memory
from ..model_spec import load_model
from ..planner.store import load_plan
from ..runtime.compile import compile_model
from ..runtime.elsewhere import warn_if_planned_elsewhere
from ..runtime.export import load_program
from ..runtime.packed_weights import load_packed
from ..runtime.planned_machine import planned_machine
from ..trainer.planned_network import planned_network
from ..trainer.store import RunFolder, load_weights
from .export import PACKED, reverted_layers


def load(source: str | Path, model: nn.Module | None = None) -> nn.Module:
    """Load a planned network and pack it for this machine; warns where it was planned for another.

    The process keeps memory that it frees from then on, as when the network was measured (`keep_memory`).

    Parameters
    ----------
    source : path
        A run folder, or a ``.safetensors`` or ``.pt2`` file written by ``sparseplan export``.
    model : nn.Module, optional
        The network that was planned, with any weights, which are overwritten; built from the plan's SPEC when left
        out. A ``.pt2`` file needs none.

    Returns
    -------
    nn.Module
        In evaluation mode, for inputs of exactly the plan's shape; on the GPU where the plan is for one.

    Raises
    ------
    InputError
        If the source is no such thing, or the model is another than the planned one.
    UnsupportedError
        If a kernel of the plan cannot run here.
    """
    path = Path(source)
    if path.suffix == ".pt2":
        keep_memory()
        return load_program(path)
    folder = RunFolder(path)
    if path.is_dir():
        plan, keep_dense = load_plan(folder.plan), reverted_layers(folder)
    elif path.suffix == PACKED:
        packed, keep_dense = load_packed(path), ()
        plan = packed.plan
    else:
        raise InputError(f"cannot load {path}: allowed are a run folder, a {PACKED} file and a .pt2 file")
    network = planned_network(load_model(plan.model) if model is None else model, plan)
    if path.is_dir():
        load_weights(network, folder.planned_weights)
    else:
        packed.fill(network)
    machine = planned_machine(plan)
    warn_if_planned_elsewhere(plan, machine)
    return compile_model(network, plan, machine=machine, keep_dense=keep_dense)
