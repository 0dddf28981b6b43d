"""``sparseplan plan``: decide for each layer what sparsity, if any, is worth having on the profiled machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ..data_spec import load_data
from ..kernels.documents import require_writable, sha256_of
from ..kernels.errors import InputError
from ..kernels.pattern import parse_pattern
from ..kernels.progress import Progress, silent
from ..kernels.registry import REGISTRY
from ..model_spec import load_model
from ..perfmodel.fit import fit_performance_model
from ..planner.example import random_example
from ..planner.make_plan import DEFAULT_PATTERNS, PlanContext, PlanRequest, make_plan
from ..planner.schema import DtypePolicy, Plan, Target
from ..planner.sensitivity import Calibration
from ..planner.store import save_plan
from ..profiles.references import profile_file
from ..profiles.store import load_profile
from ..trainer.store import load_weights
from .batch import parse_shape
from .elsewhere import machine_of

CALIBRATION_IMAGES = 512


def plan(
    model: str,
    input: Sequence[int],
    *,
    profile: str | Path,
    out: str | Path,
    weights: str | Path | None = None,
    data: str | None = None,
    target_speedup: float | None = None,
    target_latency_ms: float | None = None,
    max_accuracy_drop: float | None = None,
    dtype: DtypePolicy = "float32",
    patterns: Sequence[str] = DEFAULT_PATTERNS,
    progress: Progress = silent,
) -> Plan:
    """Plan the sparsity of a model for the machine of a profile.

    Parameters
    ----------
    model : str
        SPEC of the model.
    input : sequence of int
        Shape of one batch, [N, C, H, W].
    profile : path
        Made by ``sparseplan profile``, or ``ref:NAME``: a reference profile of a machine one may not have.
    out : path
        Where the plan is written (JSON).
    weights : path, optional
        Trained dense weights (safetensors); the SPEC's own when left out.
    data : str, optional
        SPEC of the data that calibrates the loss of each choice; without it weight magnitudes stand in.
    target_speedup, target_latency_ms, max_accuracy_drop : float
        Exactly one: against the best dense network; of one batch; in points of accuracy before training.
    dtype : {"float32", "bfloat16", "any"}
    patterns : sequence of str
        Patterns that may be chosen.

    Returns
    -------
    Plan
        Also where the target cannot be met: then its solver status is "infeasible" and it is the fastest one.
    """
    target = _target(target_speedup, target_latency_ms, max_accuracy_drop)
    for text in patterns:
        parse_pattern(text)
    shape = parse_shape(input)
    require_writable(Path(out))
    profile_path = profile_file(profile)
    measured = load_profile(profile_path)
    machine = machine_of(measured, profile_path)
    network = load_model(model).eval()
    if weights is not None:
        load_weights(network, Path(weights))
    calibration = None if data is None else _calibration(data, shape, progress)
    result = make_plan(
        network,
        PlanRequest(
            model_spec=model,
            example=_example(network, calibration, shape),
            target=target,
            dtype_policy=dtype,
            patterns=tuple(patterns),
            calibration=calibration,
        ),
        context=PlanContext(
            profile=measured,
            profile_path=str(profile_path.resolve()),
            profile_sha256=sha256_of(profile_path),
            performance_model=fit_performance_model(measured, REGISTRY),
            machine=machine,
            registry=REGISTRY,
        ),
        progress=progress,
    )
    save_plan(Path(out), result)
    return result


def _target(speedup: float | None, latency_ms: float | None, drop: float | None) -> Target:
    given = [value for value in (speedup, latency_ms, drop) if value is not None]
    if len(given) != 1:
        raise InputError(
            f"{len(given)} targets given; give exactly one of --target-speedup, --target-latency-ms, "
            "--max-accuracy-drop"
        )
    if speedup is not None and not speedup >= 1:
        raise InputError(f"--target-speedup {speedup:g}: allowed is 1 or more")
    if latency_ms is not None and not latency_ms > 0:
        raise InputError(f"--target-latency-ms {latency_ms:g}: allowed is more than 0")
    if drop is not None and not 0 <= drop <= 100:
        raise InputError(f"--max-accuracy-drop {drop:g}: allowed is 0 to 100 points")
    return Target(
        speedup=speedup,
        latency_s=None if latency_ms is None else latency_ms / 1e3,
        max_accuracy_drop_points=drop,
    )


def _calibration(data: str, shape: tuple[int, ...], progress: Progress) -> Calibration:
    """Images of the validation split: decisions never see the test data."""
    splits = load_data(data, progress=progress)
    images = splits.validation.images
    if tuple(images.shape[1:]) != shape[1:]:
        raise InputError(
            f"--input {','.join(map(str, shape))}: the images of {data} are {list(images.shape[1:])}; "
            f"give --input N,{','.join(str(size) for size in images.shape[1:])}"
        )
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:CALIBRATION_IMAGES]
    return Calibration(images=splits.normalise(images[order]), labels=splits.validation.labels[order])


def _example(model: nn.Module, calibration: Calibration | None, shape: tuple[int, ...]) -> Tensor:
    """One batch of that shape: real images where there are any."""
    if calibration is None:
        return random_example(model, shape)
    return calibration.images[torch.arange(shape[0]) % len(calibration.images)]
