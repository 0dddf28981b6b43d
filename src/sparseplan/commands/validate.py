"""``sparseplan validate``: judge a performance model on work that its profile never saw."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import chain, zip_longest
from pathlib import Path

import torch
from torch import Tensor, nn

from ..kernels.documents import read_records, require_writable, sha256_of, write_document, write_text
from ..kernels.errors import InputError
from ..kernels.problem import Problem
from ..kernels.progress import Progress, silent
from ..kernels.registry import REGISTRY
from ..kernels.spec import Device, Machine
from ..model_spec import load_model
from ..perfmodel.baselines import baselines_of
from ..perfmodel.features import layer_key
from ..perfmodel.fit import fit_performance_model
from ..perfmodel.judge import Case, judge, model_predictions
from ..perfmodel.measure_cases import measure_cases
from ..perfmodel.predict import PerformanceModel
from ..perfmodel.schema import CheckedNetwork, CheckedPrediction, Validation
from ..planner.capture import capture
from ..planner.dense_network import predict_dense
from ..planner.example import random_example
from ..planner.make_plan import machinery_of
from ..profiles.fresh_problems import fresh_problems, under_families
from ..profiles.references import profile_file
from ..profiles.schema import Budget, MachineProfile, NetworkSample
from ..profiles.stopwatch import Stopwatch, stopwatch_of
from ..profiles.store import load_profile
from ..reports.plot_validation import plot_validation
from ..runtime.fuse import fuse
from ..runtime.hosts import GPU_HOSTS, HOSTS, network_calls
from .elsewhere import measuring_machine, require_here, warn_of_versions

DEFAULT_NETWORKS = (
    ("zoo:resnet18", (1, 3, 224, 224)),
    ("zoo:mobilenet_v2", (1, 3, 224, 224)),
    ("zoo:resnet20", (64, 3, 32, 32)),
    ("zoo:lenet", (64, 1, 28, 28)),
)
"""Held out of the fit by default: large and small images, wide and depth-wise layers, one image and a batch."""
DEFAULT_OUT = Path("validation.json")
RANDOM_SHARE, LAYER_SHARE = 0.5, 0.3
"""Of the budget; the rest is for whole networks."""
LEAST_KNOWN_FRAC = 0.5
"""Of the layers of a measured network that must stay in the profile for the network to stay too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeTable:
    """Wall-clock time for everything and for one problem, in seconds."""

    total_s: float
    problem_s: float


TIME_TABLES: dict[Budget, TimeTable] = {
    "quick": TimeTable(total_s=60.0, problem_s=0.2),
    "standard": TimeTable(total_s=300.0, problem_s=0.4),
    "full": TimeTable(total_s=1800.0, problem_s=1.0),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _HeldOut:
    """A network that the fit must not know."""

    spec: str
    model: nn.Module
    example: Tensor
    layers: tuple[Problem, ...]


def validate(
    profile: str | Path,
    *,
    out: str | Path = DEFAULT_OUT,
    problems: str | Path | None = None,
    networks: Sequence[tuple[str, Sequence[int]]] = DEFAULT_NETWORKS,
    budget: Budget = "quick",
    seed: int = 1,
    progress: Progress = silent,
) -> Validation:
    """Measure fresh problems and compare them with predictions from a profile, beside three simple predictors.

    Parameters
    ----------
    profile : path
        Made on this machine by ``sparseplan profile``.
    out : path
        Written as JSON; a plot goes beside it (`.svg`).
    problems : path, optional
        Problems to measure (`.jsonl`) instead of random ones and of layers of `networks`.
    networks : sequence of (SPEC, input shape)
        Networks whose layers are taken out of the profile before the fit, and which are timed as a whole.
    budget : {"quick", "standard", "full"}
        About 1, 5 or 30 min.
    seed : int
        Of the random problems.

    Raises
    ------
    InputError
        If a file cannot be read or written.
    """
    start_s = time.perf_counter()
    target, plot = Path(out), Path(out).with_suffix(".svg")
    require_writable(target)
    require_writable(plot)
    source = profile_file(profile)
    measured = load_profile(source)
    machine = measuring_machine(measured, source)
    watch = stopwatch_of(measured.device)
    require_here(measured, source, machine, wanted="validated")
    warn_of_versions(measured, source, machine)
    held_out = tuple(_load(spec, tuple(shape), measured.threads) for spec, shape in networks)
    known = without_networks(measured, [network.spec for network in held_out])
    known = without_layers(known, [layer for network in held_out for layer in network.layers])
    model = fit_performance_model(known, REGISTRY)
    table = TIME_TABLES[budget]
    work: Iterator[Problem]
    if problems is None:
        layers = [problem for network in held_out for problem in network.layers]
        random = fresh_problems(budget, measured.threads, seed=seed, device=measured.device)
        work = _interleave(random, _layer_problems(layers, seed, measured.device))
    else:
        work = iter(read_records(Path(problems), Problem, kind="problem"))
    cases = measure_cases(
        work,
        machine=machine,
        registry=REGISTRY,
        seed=seed,
        budget_s=(RANDOM_SHARE + LAYER_SHARE) * table.total_s,
        problem_s=table.problem_s,
        watch=watch,
        progress=progress,
    )
    if not cases:
        raise InputError(f"no problem of {problems} has a kernel to measure on this machine; give others")
    result = Validation(
        created=datetime.now(UTC),
        machine=measured.machine_name,
        profile_sha256=sha256_of(source),
        profile_budget=measured.budget,
        held_out=tuple(network.spec for network in held_out),
        qualities=judge(cases, model, baselines_of(known)),
        predictions=_checked(cases, model),
        networks=_check_networks(held_out, known, model, machine, watch, table, progress),
        duration_s=time.perf_counter() - start_s,
    )
    write_document(target, result)
    write_text(plot, plot_validation(result.predictions))
    return result


def without_layers(profile: MachineProfile, layers: Sequence[Problem]) -> MachineProfile:
    """The profile as if these layers had never been measured, at any batch or sparsity.

    Whole networks made mostly of them go too: what they add to their layers cannot be told without their layers.
    """
    unknown = {layer_key(layer) for layer in layers}

    def known_frac(network: NetworkSample) -> float:
        known = sum(layer.calls for layer in network.layers if layer_key(layer.problem) not in unknown)
        return known / sum(layer.calls for layer in network.layers)

    samples = tuple(sample for sample in profile.samples if layer_key(sample.problem) not in unknown)
    networks = tuple(network for network in profile.networks if known_frac(network) >= LEAST_KNOWN_FRAC)
    return profile.model_copy(update={"samples": samples, "networks": networks})


def without_networks(profile: MachineProfile, models: Sequence[str]) -> MachineProfile:
    """The profile as if none of these had been measured as a whole."""
    kept = tuple(sample for sample in profile.networks if sample.model not in models)
    return profile.model_copy(update={"networks": kept})


def _load(spec: str, shape: tuple[int, ...], threads: int) -> _HeldOut:
    model = load_model(spec).eval()
    example = random_example(model, shape)
    layers = {replace(layer.problem, threads=threads): None for layer in capture(model, example).layers}
    return _HeldOut(spec=spec, model=model, example=example, layers=tuple(layers))


def _interleave(random: Iterator[Problem], layers: Iterator[Problem]) -> Iterator[Problem]:
    """Five random problems for every three of layers."""
    while True:
        found = [next(layers, None) for _ in range(3)]
        yield from (problem for problem in found if problem is not None)
        for _ in range(5):
            yield next(random)


def _layer_problems(layers: Sequence[Problem], seed: int, device: Device) -> Iterator[Problem]:
    """Each layer in turn under its first family, then each under its second, and so on."""
    turns = zip_longest(
        *(under_families(layer, seed=seed + number, device=device) for number, layer in enumerate(layers))
    )
    return (problem for problem in chain.from_iterable(turns) if problem is not None)


def _checked(cases: Sequence[Case], model: PerformanceModel) -> tuple[CheckedPrediction, ...]:
    answers = model_predictions(cases, model)
    return tuple(
        CheckedPrediction(
            problem=case.problem,
            kernel=sample.kernel,
            predicted_s=answers[number, sample.kernel].interval,
            time_s=sample.time_s,
            extrapolated=answers[number, sample.kernel].extrapolated,
        )
        for number, case in enumerate(cases)
        for sample in case.judged()
    )


def _check_networks(
    networks: Sequence[_HeldOut],
    profile: MachineProfile,
    model: PerformanceModel,
    machine: Machine,
    watch: Stopwatch,
    table: TimeTable,
    progress: Progress,
) -> tuple[CheckedNetwork, ...]:
    """Each network under every host, in alternation; the fastest counts, as the prediction is of the best dense one."""
    threads_before = torch.get_num_threads()
    machinery = machinery_of(profile, model, machine=machine, registry=REGISTRY)
    hosts = HOSTS if machine.device == "cpu" else GPU_HOSTS
    checked = []
    try:
        torch.set_num_threads(profile.threads)
        for number, network in enumerate(networks):
            progress("measuring networks", number, len(networks))
            predicted, _ = predict_dense(network.model, network.example, threads=profile.threads, machinery=machinery)
            fused = fuse(network.model).model
            share_s = (1.0 - RANDOM_SHARE - LAYER_SHARE) * table.total_s / len(networks)
            with watch.settings():
                calls = network_calls(fused, network.example, hosts, watch)
                times = watch.networks(list(calls.values()), budget_s=share_s)
            host, time_s = min(zip(calls, times, strict=True), key=lambda pair: pair[1].median)
            checked.append(
                CheckedNetwork(
                    model=network.spec,
                    input_shape=tuple(network.example.shape),
                    predicted_s=predicted,
                    time_s=time_s,
                    host=host,
                )
            )
    finally:
        torch.set_num_threads(threads_before)
    progress("measuring networks", 1, 1)
    return tuple(checked)
