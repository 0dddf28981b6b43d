"""``sparseplan plan``: decide for each layer what sparsity, if any, is worth having on the profiled machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
from ..planner.expected_loss import SEARCH_BUDGET_S
from ..planner.make_plan import make_plan
from ..planner.request import DEFAULT_PATTERNS_OF, PlanContext, PlanRequest
from ..planner.schema import DtypePolicy, Plan, Target
from ..planner.sensitivity import Calibration
from ..planner.store import save_plan
from ..profiles.references import profile_file
from ..profiles.store import load_profile
from ..trainer.data import DataSplits
from ..trainer.sas import layers_with_kernels
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
    target_throughput: float | None = None,
    max_accuracy_drop: float | None = None,
    max_model_mb: float | None = None,
    dtype: DtypePolicy = "float32",
    patterns: Sequence[str] | None = None,
    database: str | Path | None = None,
    search_s: float = SEARCH_BUDGET_S,
    sweep: int = 0,
    shared_widths: bool = True,
    sas: int | None = None,
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
    target_speedup, target_latency_ms, target_throughput, max_accuracy_drop, max_model_mb : float
        One or several, all of which the plan meets: against the best dense network; of one batch; images a second in
        such batches; points of accuracy before training; megabytes of the model as a file.
    dtype : {"float32", "bfloat16", "any", "int8"}
        any allows float32 and bfloat16, int8 allows float32 and int8, layer by layer.
    patterns : sequence of str, optional
        Patterns that may be chosen; those that pay on some layer of the profile's device when left out. ``lowrank``
        (weights become products of thin ones) only where it is named.
    database : path, optional
        Folder of pruned layers: plan thoroughly, by removing weights one by one and refitting the others, and by a
        search on the whole network. It takes minutes, goes on after an interruption, and makes planning again for
        other targets or machines a matter of seconds. Needs `data`.
    search_s : float
        With `database`: time of the search, seconds.
    shared_widths : bool
        Whether filters, channels and branches go in all layers that share them, so that the network itself shrinks;
        else they are skipped layer by layer. See `PlanRequest`.
    sas : int, optional
        In place of a target: every layer behind a ReLU, GELU or SiLU under SAS 1:sas (2, 4, 8), all others dense.
    sweep : int
        Points of the front of loss against time that goes into the plan as well; 0 for none.

    Returns
    -------
    Plan
        Also where the target cannot be met: then its solver status is "infeasible" and it is the fastest one.
    """
    asked = (target_speedup, target_latency_ms, target_throughput, max_accuracy_drop, max_model_mb)
    target = Target() if sas is not None and asked == (None,) * len(asked) else _target(*asked)
    for text in patterns or ():
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
            patterns=DEFAULT_PATTERNS_OF[measured.device] if patterns is None else tuple(patterns),
            calibration=calibration,
            pruned_layers=None if database is None else Path(database),
            search_budget_s=search_s,
            sweep_points=sweep,
            shared_widths=shared_widths,
            under_sas={} if sas is None else dict.fromkeys(layers_with_kernels(network), f"sas:1:{sas}"),
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ask:
    """A target as the command line names it: the option, its value, the least that is allowed, in what."""

    option: str
    value: float | None
    least: float
    text: str


def _target(
    speedup: float | None,
    latency_ms: float | None,
    throughput: float | None,
    drop: float | None,
    model_mb: float | None,
) -> Target:
    asked = (
        _Ask(option="--target-speedup", value=speedup, least=1.0, text="1 or more"),
        _Ask(option="--target-latency-ms", value=latency_ms, least=0.0, text="more than 0"),
        _Ask(option="--target-throughput", value=throughput, least=0.0, text="more than 0 images a second"),
        _Ask(option="--max-accuracy-drop", value=drop, least=0.0, text="0 to 100 points"),
        _Ask(option="--max-model-mb", value=model_mb, least=0.0, text="more than 0"),
    )
    if all(each.value is None for each in asked):
        raise InputError(f"no target given; give one or several of {', '.join(each.option for each in asked)}")
    for each in asked:
        may_be_least = "more than" not in each.text
        if each.value is not None and not (each.value > each.least or (may_be_least and each.value == each.least)):
            raise InputError(f"{each.option} {each.value:g}: allowed is {each.text}")
    if drop is not None and drop > 100:
        raise InputError(f"--max-accuracy-drop {drop:g}: allowed is 0 to 100 points")
    return Target(
        speedup=speedup,
        latency_s=None if latency_ms is None else latency_ms / 1e3,
        throughput_per_s=throughput,
        max_accuracy_drop_points=drop,
        model_bytes=None if model_mb is None else model_mb * 1e6,
    )


def _calibration(data: str, shape: tuple[int, ...], progress: Progress) -> Calibration:
    splits = load_data(data, progress=progress)
    images = splits.validation.images
    if tuple(images.shape[1:]) != shape[1:]:
        raise InputError(
            f"--input {','.join(map(str, shape))}: the images of {data} are {list(images.shape[1:])}; "
            f"give --input N,{','.join(str(size) for size in images.shape[1:])}"
        )
    return calibration_of(splits, CALIBRATION_IMAGES)


def calibration_of(splits: DataSplits, count: int) -> Calibration:
    """Some images of the validation split, the same ones each time: decisions never see the test data."""
    images = splits.validation.images
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:count]
    return Calibration(images=splits.normalise(images[order]), labels=splits.validation.labels[order])


def _example(model: nn.Module, calibration: Calibration | None, shape: tuple[int, ...]) -> Tensor:
    """One batch of that shape: real images where there are any."""
    if calibration is None:
        return random_example(model, shape)
    return calibration.images[torch.arange(shape[0]) % len(calibration.images)]
