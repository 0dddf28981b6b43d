"""``sparseplan profile --extend``: measure the layers of one model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..kernels.documents import require_writable
from ..kernels.errors import InputError
from ..kernels.progress import Progress, silent
from ..kernels.registry import REGISTRY
from ..model_spec import load_model
from ..planner.capture import capture
from ..planner.example import random_example
from ..planner.options import DTYPES_OF
from ..planner.request import DEFAULT_PATTERNS_OF
from ..planner.schema import DtypePolicy
from ..profiles.extend_profile import extend_profile, layer_problems
from ..profiles.fingerprint import differences, read_fingerprint
from ..profiles.references import PREFIX, profile_file
from ..profiles.schema import MachineProfile
from ..profiles.stopwatch import stopwatch_of
from ..profiles.store import load_profile, save_profile
from .batch import parse_shape
from .elsewhere import measuring_machine


def extend(
    profile: str | Path,
    model: str,
    *,
    input: Sequence[int],
    patterns: Sequence[str] | None = None,
    dtype: DtypePolicy = "float32",
    out: str | Path | None = None,
    progress: Progress = silent,
) -> MachineProfile:
    """Measure the layers of a model and add them to a profile of this machine, so that plans for it are certain.

    Parameters
    ----------
    profile : path
        Made on this machine by ``sparseplan profile``.
    model : str
        SPEC of the model.
    input : sequence of int
        Shape of one batch, [N, C, H, W].
    patterns : sequence of str, optional
        Patterns to measure each layer under; those that pay on some layer of such a device when left out.
    dtype : {"float32", "bfloat16", "any", "int8"}
        any allows float32 and bfloat16, int8 allows float32 and int8, layer by layer.
    out : path, optional
        Where the longer profile is written; over the old one when left out.

    Raises
    ------
    InputError
        If the profile is of another machine or other versions.
    """
    source = profile_file(profile)
    if out is None and str(profile).startswith(PREFIX):
        raise InputError(f"{profile} is a reference and stays as it is; name the longer profile with --out")
    target = source if out is None else Path(out)
    require_writable(target)
    measured = load_profile(source)
    machine = measuring_machine(measured, source)
    other = differences(measured.fingerprint, read_fingerprint(machine))
    if other:
        raise InputError(f"{source} cannot be extended here: {'; '.join(other)}; make a new profile on this machine")
    network = load_model(model)
    captured = capture(network, random_example(network, parse_shape(input)))
    layers = [
        replace(layer.problem, dtype=kind, threads=measured.threads)
        for layer in captured.layers
        for kind in DTYPES_OF[dtype]
    ]
    result = extend_profile(
        measured,
        layer_problems(layers, DEFAULT_PATTERNS_OF[measured.device] if patterns is None else patterns),
        machine=machine,
        registry=REGISTRY,
        watch=stopwatch_of(measured.device),
        progress=progress,
    )
    save_profile(target, result)
    return result
