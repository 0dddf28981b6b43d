"""``sparseplan export``: the planned network of a run as one file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..kernels.documents import require_writable
from ..model_spec import load_model
from ..planner.example import random_example
from ..planner.store import load_plan
from ..runtime.compile import compile_model
from ..runtime.elsewhere import warn_if_planned_elsewhere
from ..runtime.export import export_network
from ..runtime.packed_weights import save_packed
from ..runtime.planned_machine import planned_machine
from ..runtime.store import load_measurements
from ..trainer.evaluate import device_of
from ..trainer.planned_network import planned_network
from ..trainer.store import RunFolder, load_weights

PACKED = ".safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What was written.

    Attributes
    ----------
    output_error : float or None
        Largest difference between file and network, over the largest output; None for weights, which are exact.
    """

    path: Path
    size_bytes: int
    output_error: float | None


def export(run: str | Path, to: str | Path) -> Exported:
    """Write the planned network of a trained run as one file; numbers are compared after writing.

    Parameters
    ----------
    to : path
        ``.safetensors`` (weights without their zeros, and the plan, for any machine), ``.pt2`` (torch.export, with the
        kernels of this machine), or where no layer needs a sparse kernel ``.onnx`` or ``.xml`` (OpenVINO). Layers that
        lost in ``bench`` are dense in the last three.

    Raises
    ------
    InputError
        If the folder is not a finished run, or the suffix is another.
    UnsupportedError
        If the plan's kernels cannot run here, or the form cannot hold them.
    """
    folder, target = RunFolder(Path(run)), Path(to)
    require_writable(target)
    plan = load_plan(folder.plan)
    model = planned_network(load_model(folder.load_manifest().model), plan)
    load_weights(model, folder.planned_weights)
    if target.suffix == PACKED:
        save_packed(target, model, plan)
        return Exported(path=target, size_bytes=target.stat().st_size, output_error=None)
    machine = planned_machine(plan)
    warn_if_planned_elsewhere(plan, machine)
    compiled = compile_model(model, plan, machine=machine, keep_dense=reverted_layers(folder))
    example = random_example(model, plan.input_shape).to(device_of(compiled))
    error = export_network(compiled, example, target)
    return Exported(path=target, size_bytes=target.stat().st_size, output_error=error)


def reverted_layers(folder: RunFolder) -> tuple[str, ...]:
    """Layers that lost against their dense kernels when the run was measured; none where it was not."""
    if not folder.measurements.exists():
        return ()
    return tuple(layer.name for layer in load_measurements(folder.measurements).layers if layer.reverted)
