"""Documents of an invented run with plausible values: ten layers of a small residual network on two cores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from random import Random

from sparseplan.kernels.problem import Problem
from sparseplan.perfmodel.predict import Prediction
from sparseplan.perfmodel.schema import Interval
from sparseplan.planner.schema import Candidate, LayerPlan, Plan, SkippedLayer, SolverReport, Target, Totals
from sparseplan.profiles.schema import Ceiling, ElementwiseSample, Fingerprint, MachineProfile
from sparseplan.profiles.timing import TimeStats
from sparseplan.reports.inputs import ReportInputs
from sparseplan.runtime.schema import LayerTime, Measurements, NetworkTime
from sparseplan.trainer.schema import EpochRecord, RunManifest, TrainConfig, TrainingHistory

CREATED = datetime(2026, 3, 14, 15, 9, tzinfo=UTC)
DENSE_KERNEL = "conv2d_dense_f32_nhwc__onednn"
UNSTRUCTURED_KERNEL = "conv2d_unstructured_f32_n16__avx512"
COMPACT_KERNEL = "conv2d_compact_f32_nhwc__onednn"
LINEAR_DENSE_KERNEL = "linear_dense_f32_nchw__onednn"
LINEAR_KERNEL = "linear_unstructured_f32_n16__avx512"

FINGERPRINT = Fingerprint(
    cpu_model="Intel(R) Xeon(R) 6975P-C",
    isa=("avx2", "avx512", "amx_bf16"),
    cores_physical=2,
    cores_usable=2,
    l1d_bytes=48 * 1024,
    l2_bytes=2 * 1024**2,
    l3_bytes=480 * 1024**2,
    memory_bytes=16 * 1024**3,
    gpu_model=None,
    operating_system="Linux 6.8",
    python_version="3.12.4",
    torch_version="2.13.0",
    sparseplan_version="0.1.0",
)


def conv(n: int, c_in: int, c_out: int, size: int, *, kernel: int = 3, stride: int = 1, groups: int = 1) -> Problem:
    return Problem(
        op="conv2d",
        n=n,
        c_in=c_in,
        c_out=c_out,
        h_in=size,
        w_in=size,
        kernel=(kernel, kernel),
        stride=(stride, stride),
        padding=(kernel // 2, kernel // 2),
        groups=groups,
        threads=2,
    )


def interval(median: float, *, width: float = 0.12) -> Interval:
    return Interval(median=median, low=median / (1 + width), high=median * (1 + width))


def stats(median: float, *, width: float = 0.01) -> TimeStats:
    return TimeStats(median=median, low=median * (1 - width), high=median * (1 + width), n=61)


def prediction(time_s: float) -> Prediction:
    band = interval(time_s)
    return Prediction(median_s=time_s, low_s=band.low, high_s=band.high, bound="arithmetic", extrapolated=False)


@dataclass(frozen=True)
class FakeModel:
    """Time of a layer on a kernel: compute at a rate of the kernel, and memory, whichever is longer."""

    def predict_many(self, problems: Sequence[Problem], kernel: str) -> tuple[Prediction, ...]:
        return tuple(prediction(model_time_s(problem, kernel)) for problem in problems)


def model_time_s(problem: Problem, kernel: str) -> float:
    rate = {DENSE_KERNEL: 390e9, UNSTRUCTURED_KERNEL: 130e9, COMPACT_KERNEL: 330e9}.get(kernel, 90e9)
    flop = problem.flop_useful if problem.pattern != "dense" else problem.flop_dense_equiv
    moved = problem.input_bytes + problem.output_bytes + problem.weight_bytes * (1 - problem.sparsity)
    return max(flop / rate, moved / 90e9) + 4e-6


LAYERS: tuple[tuple[str, Problem, str, float], ...] = (
    ("stem", conv(16, 3, 64, 32), "dense", 0.0),
    ("layer1.0.conv1", conv(16, 64, 64, 32), "unstructured", 0.912),
    ("layer1.0.conv2", conv(16, 64, 64, 32), "unstructured", 0.894),
    ("layer2.0.conv1", conv(16, 64, 128, 32, stride=2), "filter", 0.625),
    ("layer2.0.conv2", conv(16, 128, 128, 16), "unstructured", 0.931),
    ("layer2.0.shortcut", conv(16, 64, 128, 32, kernel=1, stride=2), "dense", 0.0),
    ("layer3.0.conv1", conv(16, 128, 256, 16, stride=2), "filter", 0.75),
    ("layer3.0.conv2", conv(16, 256, 256, 8), "unstructured", 0.965),
    ("layer3.1.depthwise", conv(16, 256, 256, 8, groups=256), "unstructured", 0.5),
    ("head", Problem(op="linear", n=16, c_in=256, c_out=10, threads=2), "dense", 0.0),
)


def kernel_for(problem: Problem, pattern: str) -> str:
    if problem.op == "linear":
        return LINEAR_DENSE_KERNEL if pattern == "dense" else LINEAR_KERNEL
    return {"dense": DENSE_KERNEL, "filter": COMPACT_KERNEL}.get(pattern, UNSTRUCTURED_KERNEL)


def candidate(problem: Problem, pattern: str, sparsity: float) -> Candidate:
    kernel = kernel_for(problem, pattern)
    return Candidate(
        pattern=pattern,
        sparsity=sparsity,
        kernel=kernel,
        dtype="float32",
        time_s=interval(model_time_s(problem.with_sparsity(pattern, sparsity), kernel)),
        loss_increase=0.02 * sparsity**3 * (2.5 if pattern == "filter" else 1.0),
        extrapolated=sparsity > 0.96,
    )


def layer_plan(name: str, problem: Problem, pattern: str, sparsity: float) -> LayerPlan:
    dense = candidate(problem, "dense", 0.0)
    chosen = candidate(problem, pattern, sparsity)
    considered = tuple(
        candidate(problem, other, level)
        for other, level in (("unstructured", 0.8), ("unstructured", 0.95), ("filter", 0.5), ("filter", 0.75))
    )
    saved = 1 - chosen.time_s.median / dense.time_s.median
    return LayerPlan(
        name=name,
        full_problem=problem.as_dense(),
        problem=problem.with_sparsity(pattern, sparsity),
        chosen=chosen,
        dense=dense,
        considered=considered if problem.op == "conv2d" else (),
        break_even_sparsity={f"unstructured on {UNSTRUCTURED_KERNEL}": 0.68, f"filter on {COMPACT_KERNEL}": 0.16}
        if problem.op == "conv2d"
        else {},
        useful_sparsity={f"unstructured on {UNSTRUCTURED_KERNEL}": 0.96, f"filter on {COMPACT_KERNEL}": None}
        if problem.op == "conv2d"
        else {},
        calls=1,
        binding_resource="bandwidth of L2" if pattern == "unstructured" else "float32 multiply-add",
        reason=(
            "kept dense: no sparse kernel is predicted to beat the dense one at a loss worth paying"
            if pattern == "dense"
            else f"{pattern} at {100 * sparsity:.1f} % zeros saves {100 * saved:.0f} % of this layer's predicted time"
        ),
    )


def sample_plan(*, target: Target | None = None) -> Plan:
    layers = tuple(layer_plan(*layer) for layer in LAYERS)
    dense_s = sum(layer.dense.time_s.median for layer in layers)
    planned_s = sum(layer.chosen.time_s.median for layer in layers)
    return Plan(
        created=CREATED,
        model="zoo:resnet20",
        input_shape=(16, 3, 32, 32),
        threads=2,
        dtype_policy="float32",
        patterns=("unstructured", "filter", "2:4"),
        target=target or Target(speedup=1.5),
        layers=layers,
        skipped=(SkippedLayer(name="norm", kind="LayerNorm", reason="has no weight matrix to prune"),),
        totals=Totals(
            dense_time_s=interval(dense_s),
            planned_time_s=interval(planned_s),
            rest_time_s=interval(4.1e-4),
            loss_increase=0.0612,
            best_reachable_speedup=2.7,
        ),
        solver=SolverReport(
            status="optimal",
            message="proved optimal",
            objective=0.0612,
            bound=0.0610,
            gap_frac=0.003,
            time_s=0.042,
        ),
        sensitivity_source="calibration",
        machine=FINGERPRINT.cpu_model,
        profile_sha256="0" * 64,
        profile_path="profile.json",
    )


def sample_measurements(plan: Plan) -> Measurements:
    random = Random(7)
    times = []
    for layer in plan.layers:
        if layer.chosen.pattern == "dense":
            continue
        loses = "depthwise" in layer.name
        slower = 3.2 if loses else math.exp(random.gauss(0.02, 0.07))
        times.append(
            LayerTime(
                name=layer.name,
                kernel=layer.chosen.kernel,
                dense_kernel=layer.dense.kernel,
                time_s=stats(layer.chosen.time_s.median * slower),
                dense_time_s=stats(layer.dense.time_s.median * math.exp(random.gauss(0.0, 0.05))),
                predicted_time_s=layer.chosen.time_s,
                max_abs_error=3.1e-6,
                reverted=loses,
            )
        )
    networks = tuple(
        NetworkTime(variant=variant, host=host, dtype="float32", time_s=stats(time_s, width=0.012))
        for host, dense_s, planned_s in (
            ("eager", 4.31e-3, 2.71e-3),
            ("channels_last", 4.02e-3, 2.48e-3),
            ("compile", 3.55e-3, 1.90e-3),
        )
        for variant, time_s in (("dense", dense_s), ("planned", planned_s))
    )
    return Measurements(
        created=CREATED,
        threads=2,
        fingerprint=FINGERPRINT,
        processes=3,
        clock_hz=(),
        networks=networks,
        layers=tuple(times),
        best_dense=networks[4],
        best_planned=networks[5],
        speedup=Interval(median=3.55 / 1.90, low=1.832, high=1.905),
        predicted_dense_time_s=interval(3.44e-3, width=0.06),
        predicted_planned_time_s=interval(1.97e-3, width=0.08),
        dense_accuracy_frac=0.9812,
        planned_accuracy_frac=0.9784,
        output_error=2.3e-5,
        shipped="planned",
        verdict="the planned network is faster beyond the doubt of the measurement",
    )


def losing_measurements(plan: Plan) -> Measurements:
    """A run in which the planned network is slower, so that the dense one is kept."""
    measurements = sample_measurements(plan)
    slower = measurements.best_planned.model_copy(update={"time_s": stats(3.80e-3)})
    return measurements.model_copy(
        update={
            "networks": (*measurements.networks[:5], slower),
            "best_planned": slower,
            "speedup": Interval(median=3.55 / 3.80, low=0.921, high=0.947),
            "shipped": "dense",
            "verdict": "the planned network is slower; the dense one is kept",
        }
    )


def sample_profile() -> MachineProfile:
    def ceiling(name: str, value: float, unit: str) -> Ceiling:
        return Ceiling.model_validate(
            {
                "name": name,
                "value": value,
                "low": value * 0.98,
                "high": value * 1.02,
                "unit": unit,
                "threads": 2,
                "source": "measured",
            }
        )

    return MachineProfile(
        created=CREATED,
        budget="quick",
        threads=2,
        fingerprint=FINGERPRINT,
        ceilings=(
            ceiling("flop_per_s:fma_f32", 492e9, "flop/s"),
            ceiling("flop_per_s:dot_bf16", 7090e9, "flop/s"),
            ceiling("bandwidth_byte_per_s:l1", 1350e9, "byte/s"),
            ceiling("bandwidth_byte_per_s:l2", 410e9, "byte/s"),
            ceiling("bandwidth_byte_per_s:l3", 112e9, "byte/s"),
            ceiling("bandwidth_byte_per_s:dram", 31e9, "byte/s"),
            ceiling("latency_s:parallel_region", 2.1e-6, "s"),
            ceiling("latency_s:torch_op", 8.4e-7, "s"),
        ),
        samples=(),
        elementwise=(ElementwiseSample(operation="relu", bytes_moved=8e6, threads=2, time_s=stats(9e-5)),),
        networks=(),
        stability=(),
        duration_s=41.0,
    )


def sample_history(plan: Plan, *, epochs: int = 12) -> TrainingHistory:
    random = Random(3)
    sparse = [layer for layer in plan.layers if layer.chosen.pattern != "dense"]
    records = []
    for epoch in range(1, epochs + 1):
        grown = min(1.0, epoch / (epochs / 2))
        pressure = 0.18 * grown * math.exp(-max(0, epoch - epochs / 2) / 2)
        records.append(
            EpochRecord(
                epoch=epoch,
                phase="prune" if epoch <= epochs / 2 else "finetune",
                learning_rate=0.05 * (1 + math.cos(math.pi * epoch / epochs)) / 2,
                train_loss=0.09 + pressure + random.gauss(0, 0.006),
                validation_loss=0.13 + pressure + random.gauss(0, 0.012),
                validation_accuracy_frac=0.979 - 0.12 * pressure + random.gauss(0, 0.001),
                sparsity={
                    layer.name: layer.chosen.sparsity * (1 - (1 - grown) ** (2.0 + 0.3 * index))
                    for index, layer in enumerate(sparse)
                },
                duration_s=7.1,
            )
        )
    return TrainingHistory(
        config=TrainConfig(epochs=epochs),
        epochs=tuple(records),
        dense_validation_accuracy_frac=0.9806,
        dense_test_accuracy_frac=0.9812,
        validation_accuracy_frac=0.9789,
        test_accuracy_frac=0.9784,
        classes=10,
        duration_s=7.1 * epochs,
    )


def sample_manifest() -> RunManifest:
    return RunManifest(
        created=CREATED,
        model="zoo:resnet20",
        data="cifar10:data/cifar10",
        dense_weights="weights/resnet20.safetensors",
        plan_sha256="0" * 64,
    )


def sample_inputs() -> ReportInputs:
    plan = sample_plan()
    return ReportInputs(
        plan=plan,
        measurements=sample_measurements(plan),
        history=sample_history(plan),
        profile=sample_profile(),
        manifest=sample_manifest(),
    )


def renamed(inputs: ReportInputs, old: str, new: str) -> ReportInputs:
    """The same run with another name for one layer."""
    plan = inputs.plan.model_copy(
        update={
            "layers": tuple(
                layer.model_copy(update={"name": new}) if layer.name == old else layer for layer in inputs.plan.layers
            )
        }
    )
    measurements = inputs.measurements.model_copy(
        update={
            "layers": tuple(
                layer.model_copy(update={"name": new}) if layer.name == old else layer
                for layer in inputs.measurements.layers
            )
        }
    )
    return replace(inputs, plan=plan, measurements=measurements)
