"""The whole way of a network with int8 layers: plan, train with their rounding, bench, export, load."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from finished_job import check_exports, finished_job
from safetensors.torch import load_file

from sparseplan.kernels.cpu import detect_machine
from sparseplan.kernels.errors import InputError, UnsupportedError
from sparseplan.kernels.problem import Problem
from sparseplan.kernels.registry import REGISTRY
from sparseplan.model_spec import load_model
from sparseplan.planner.schema import LayerPlan, Plan
from sparseplan.profiles.sample_kernels import kernels_to_time
from sparseplan.profiles.schema import Ceiling, KernelSample, MachineProfile
from sparseplan.profiles.store import load_profile, save_profile
from sparseplan.profiles.timing import TimeStats
from sparseplan.runtime.closed_loop import pruned, with_ranges
from sparseplan.runtime.compile import compile_model
from sparseplan.runtime.schema import Measurements
from sparseplan.trainer.planned_network import planned_network
from sparseplan.trainer.regulariser import PruneOptions, prepare
from sparseplan.trainer.schema import TrainingHistory
from sparseplan.trainer.store import load_weights

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch"),
    pytest.mark.skipif("avx512vnni" not in detect_machine().isa, reason="no int8 kernel runs on this CPU"),
]


@pytest.fixture(scope="module")
def int8_profile(profile_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The made-up machine with int8 kernels that reach half of a peak eight times that of float32."""
    known = load_profile(profile_path)
    samples = list(known.samples)
    for c_in, c_out in ((1, 32), (32, 96), (96, 96)):
        conv = Problem(op="conv2d", n=16, c_in=c_in, c_out=c_out, h_in=8, w_in=8, kernel=(3, 3), padding=(1, 1))
        dense = replace(conv, dtype="int8")
        for problem in (dense, *(dense.with_sparsity("block:16x4", sparsity) for sparsity in (0.5, 0.8))):
            for kernel in kernels_to_time(problem, detect_machine(), REGISTRY, every_isa=True):
                time_s = 2e-6 + kernel.cost(problem).flop / 4e11
                stats = TimeStats(median=time_s, low=0.999 * time_s, high=1.001 * time_s, n=9)
                samples.append(
                    KernelSample(problem=problem, kernel=kernel.name, time_s=stats, pack_time_s=1e-3, noisy=False)
                )
    peak = Ceiling(
        name="flop_per_s:dot_int8", value=8e11, low=8e11, high=8e11, unit="flop/s", threads=1, source="assumed"
    )
    longer = {**known.model_dump(), "ceilings": (*known.ceilings, peak), "samples": tuple(samples)}
    path = tmp_path_factory.mktemp("int8-profile") / "profile.json"
    save_profile(path, MachineProfile.model_validate(longer))
    return path


@pytest.fixture(scope="module")
def run(user_file: Path, int8_profile: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run folder; layers may go to int8 and lose blocks."""
    folder = tmp_path_factory.mktemp("int8")
    options = ("--dtype", "int8", "--patterns", "block:16x4", "--target-speedup", "3", "--no-shared-widths")
    return finished_job(folder, user_file, int8_profile, *options)


def plan_of(run: Path) -> Plan:
    return Plan.model_validate_json((run / "plan.json").read_text())


def int8_layers(run: Path) -> list[LayerPlan]:
    return [layer for layer in plan_of(run).layers if layer.chosen.dtype == "int8"]


def test_the_plan_puts_layers_into_int8_and_counts_what_rounding_costs(run: Path) -> None:
    layers = int8_layers(run)
    assert layers
    assert all(layer.chosen.loss_increase > 0.0 for layer in layers)
    assert all("_i8_" in layer.chosen.kernel for layer in layers)
    assert all(layer.problem.dtype == "int8" for layer in layers)
    assert all(layer.dense.dtype == "float32" for layer in plan_of(run).layers)


def test_trained_weights_come_with_the_ranges_of_their_layers(run: Path) -> None:
    planned = load_file(run / "planned.safetensors")
    for layer in int8_layers(run):
        for name in ("x_range", "y_range"):
            low, high = planned[f"{layer.name}.{name}"].tolist()
            assert low <= 0.0 < high
    assert not any("range" in name for name in load_file(run / "dense.safetensors"))


def test_bench_runs_the_int8_kernels_and_they_agree_with_what_was_trained(run: Path) -> None:
    measured = Measurements.model_validate_json((run / "measurements.json").read_text())
    assert {layer.name for layer in measured.layers} >= {layer.name for layer in int8_layers(run)}
    # Against the reference kernel, whose integers are the same.
    assert all(layer.max_abs_error < 1e-5 for layer in measured.layers if "_i8_" in layer.kernel)
    assert 0.0 < measured.output_error < 0.05
    trained = TrainingHistory.model_validate_json((run / "training.json").read_text())
    assert measured.planned_accuracy_frac == pytest.approx(trained.test_accuracy_frac, abs=0.03)
    assert {time.dtype for time in measured.networks} == {"float32"}


def test_exported_files_compute_what_the_run_does(run: Path, tmp_path: Path, user_file: Path) -> None:
    plan = plan_of(run)
    trained = planned_network(load_model(f"{user_file}:model"), plan)
    load_weights(trained, run / "planned.safetensors")
    (run / "measurements.json").rename(tmp_path / "measurements.json")  # so that no layer goes back to dense
    check_exports(run, tmp_path, compile_model(trained, plan))
    stored = load_file(tmp_path / "net.safetensors")
    assert all(stored[f"{layer.name}.weight"].dtype == torch.int8 for layer in int8_layers(run))


def test_before_training_the_loop_measures_with_ranges_of_one_batch(run: Path, user_file: Path) -> None:
    plan, model = plan_of(run), load_model(f"{user_file}:model").eval()
    x = torch.randn(16, 1, 8, 8)
    ranged = with_ranges(pruned(model, plan), plan, x)
    expected = ranged(x).detach()
    error = (compile_model(ranged, plan)(x) - expected).abs().max()
    assert 0.0 < float(error) < 0.05 * float(expected.abs().max())


def test_a_plain_network_is_refused(run: Path, user_file: Path) -> None:
    plan, model = plan_of(run), load_model(f"{user_file}:model")
    with pytest.raises(InputError, match=r"in int8, the model has it plain; give .*planned_network"):
        compile_model(model, plan)
    with pytest.raises(InputError, match="nothing says in which range"):
        compile_model(planned_network(model, plan), plan)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(UnsupportedError, match="in int8, which a plain layer does not learn"):
        prepare(model, plan, optimizer, options=PruneOptions(prune_steps=1))
