"""What a profile says, in short: how well each family of kernels is known, and from which sparsity it pays."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, replace

from ..kernels.pattern import DENSE
from ..kernels.problem import Problem
from ..kernels.select import eligible
from ..kernels.spec import KernelSpec, Machine
from ..profiles.schema import CLOCK, ElementwiseSample, KernelSample, MachineProfile, NetworkSample
from .break_even import break_even_sparsity
from .fit import fit_performance_model
from .fit_network import network_parts, network_time_s
from .predict import PerformanceModel
from .schema import (
    ElementwiseSummary,
    FamilySummary,
    LayerBreakEven,
    NetworkSummary,
    NetworkTermsSummary,
    ProfileSummary,
)

TYPICAL_LAYERS = {
    "ResNet-50 3x3": Problem(op="conv2d", n=16, c_in=256, c_out=256, h_in=14, w_in=14, kernel=(3, 3), padding=(1, 1)),
    "ResNet-50 1x1": Problem(op="conv2d", n=16, c_in=1024, c_out=256, h_in=14, w_in=14),
    "ResNet-56 3x3": Problem(op="conv2d", n=64, c_in=32, c_out=32, h_in=16, w_in=16, kernel=(3, 3), padding=(1, 1)),
    "BERT feed-forward": Problem(op="linear", n=128, c_in=768, c_out=3072),
    "AlexNet fc7": Problem(op="linear", n=1, c_in=4096, c_out=4096),
}
"""Convolutions bound by arithmetic and by memory, of a large and a small network; linears of many rows and of one."""


def summarise_profile(profile: MachineProfile, machine: Machine, registry: Sequence[KernelSpec]) -> ProfileSummary:
    """Fit a profile and read from the model what it is good for.

    Parameters
    ----------
    machine : Machine
        That of the profile.

    Raises
    ------
    InputError
        If the profile lacks a ceiling.
    """
    model = fit_performance_model(profile, registry)
    clock = [ceiling for ceiling in profile.ceilings if ceiling.name == CLOCK]
    return ProfileSummary(
        created=profile.created,
        budget=profile.budget,
        threads=profile.threads,
        fingerprint=profile.fingerprint,
        duration_s=profile.duration_s,
        ceilings=profile.ceilings,
        drift_frac=profile.drift_frac,
        clock_spread_frac=max(((each.high - each.low) / each.value for each in clock), default=None),
        noisy_frac=sum(sample.noisy for sample in profile.samples) / max(len(profile.samples), 1),
        families=_families(profile, model, machine, registry),
        elementwise=_elementwise(profile.elementwise),
        network=_network(profile.networks, model),
    )


def family_of(kernel: KernelSpec) -> str:
    """What kernels share that differ in layout and instruction set alone: ``conv2d unstructured float32``."""
    return f"{kernel.op} {kernel.name.split('_')[1]} {kernel.dtype}"


def _families(
    profile: MachineProfile, model: PerformanceModel, machine: Machine, registry: Sequence[KernelSpec]
) -> tuple[FamilySummary, ...]:
    samples: dict[str, list[KernelSample]] = defaultdict(list)
    for sample in profile.samples:
        samples[sample.kernel].append(sample)
    members: dict[str, list[KernelSpec]] = defaultdict(list)
    for kernel in registry:
        if samples.get(kernel.name):
            members[family_of(kernel)].append(kernel)
    return tuple(
        _family(name, kernels, [sample for kernel in kernels for sample in samples[kernel.name]], model, machine)
        for name, kernels in members.items()
    )


def _family(
    name: str,
    kernels: Sequence[KernelSpec],
    samples: Sequence[KernelSample],
    model: PerformanceModel,
    machine: Machine,
) -> FamilySummary:
    ((pattern, _),) = Counter(sample.problem.pattern for sample in samples).most_common(1)
    known = [model.kernels[kernel.name] for kernel in kernels]
    judged = [each for each in known if math.isfinite(each.held_out_error)]
    weight = sum(each.samples for each in judged)
    return FamilySummary(
        family=name,
        kernels=tuple(kernel.name for kernel in kernels),
        samples=len(samples),
        noisy=sum(sample.noisy for sample in samples),
        held_out_error_frac=sum(each.samples * each.held_out_error for each in judged) / weight if weight else None,
        pattern=pattern,
        break_even=()
        if pattern == DENSE.text
        else tuple(_break_evens(kernels, pattern, threads=model.threads, model=model, machine=machine)),
    )


def _break_evens(
    kernels: Sequence[KernelSpec], pattern: str, *, threads: int, model: PerformanceModel, machine: Machine
) -> list[LayerBreakEven]:
    """Of each typical layer that the family can run: from which sparsity its best kernel beats the best dense one."""
    found = []
    for name, layer in TYPICAL_LAYERS.items():
        problem = replace(layer, dtype=kernels[0].dtype, threads=threads)
        sparse = [
            kernel for kernel in kernels if kernel in eligible(problem.with_sparsity(pattern, 0.5), machine, kernels)
        ]
        dense = [
            each.spec.name
            for each in model.kernels.values()
            if each.samples and each.spec.patterns == (DENSE.text,) and eligible(problem, machine, (each.spec,))
        ]
        if problem.op != kernels[0].op or not sparse or not dense:
            continue
        dense_s = min(model.predict(problem, kernel).median_s for kernel in dense)
        bounds = [break_even_sparsity(model, problem, pattern, kernel.name, dense_s) for kernel in sparse]
        reached = [bound for bound in bounds if bound is not None]
        found.append(LayerBreakEven(layer=name, sparsity=min(reached, default=None)))
    return found


def _elementwise(samples: Sequence[ElementwiseSample]) -> tuple[ElementwiseSummary, ...]:
    by_operation: dict[str, list[ElementwiseSample]] = defaultdict(list)
    for sample in samples:
        by_operation[sample.operation].append(sample)
    summaries = []
    for operation, found in by_operation.items():
        small = min(found, key=lambda sample: sample.bytes_moved)
        large = max(found, key=lambda sample: sample.bytes_moved)
        summaries.append(
            ElementwiseSummary(
                operation=operation,
                samples=len(found),
                smallest_bytes=small.bytes_moved,
                smallest_s=small.time_s.median,
                largest_bytes=large.bytes_moved,
                largest_byte_per_s=large.bytes_moved / large.time_s.median,
            )
        )
    return tuple(summaries)


def _network(samples: Sequence[NetworkSample], model: PerformanceModel) -> NetworkTermsSummary:
    return NetworkTermsSummary(
        source="fitted" if samples else "assumed",
        **asdict(model.network),
        networks=tuple(
            NetworkSummary(
                model=sample.model,
                input_shape=sample.input_shape,
                measured_s=sample.time_s.median,
                fitted_s=network_time_s(network_parts(sample, model), model.network),
            )
            for sample in samples
        ),
    )
