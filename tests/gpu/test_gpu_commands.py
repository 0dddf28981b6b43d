"""Measuring and running for a GPU: the CPU stands in for the device, or the device is missing and that is said."""

from __future__ import annotations

import warnings
from itertools import islice
from pathlib import Path

import pytest
import torch
from fake_gpu import FakeGpu, Ticking
from gpu_profile import FINGERPRINT, gpu_profile
from planned_gpu import gpu_plan, pruned_net
from torch import nn

from sparseplan.cli import main
from sparseplan.commands import validate as validate_command
from sparseplan.kernels.errors import SparseplanWarning, UnsupportedError
from sparseplan.kernels.gpu.machine import gpu_machine
from sparseplan.kernels.problem import Problem
from sparseplan.kernels.registry import REGISTRY
from sparseplan.planner.store import save_plan
from sparseplan.profiles.extend_profile import extend_profile
from sparseplan.profiles.fresh_problems import fresh_problems, under_families
from sparseplan.profiles.gpu_spread import GPU_FAMILIES
from sparseplan.profiles.measure_problems import measure_problems
from sparseplan.profiles.stopwatch import Stopwatch, gpu_stopwatch
from sparseplan.profiles.store import save_profile
from sparseplan.runtime.compile import compile_model
from sparseplan.runtime.hosts import GPU_HOSTS, hosts_here, network_calls
from sparseplan.runtime.planned_machine import device_of_plan, planned_machine
from sparseplan.trainer.store import RunFolder

LINEAR = Problem(op="linear", n=64, c_in=96, c_out=64)
LINEAR_TEXT = '{"op":"linear","n":64,"c_in":96,"c_out":64}\n'
LIBRARIES_ALONE = gpu_machine((9, 0), has_triton=False, has_cusparselt=False)
without_a_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")


@pytest.fixture
def watch() -> Stopwatch:
    return gpu_stopwatch(torch.device("cpu"), Ticking())


def test_a_profile_is_extended(watch: Stopwatch) -> None:
    before = gpu_profile([])
    longer = extend_profile(before, [LINEAR], machine=LIBRARIES_ALONE, registry=REGISTRY, watch=watch)
    assert {sample.kernel for sample in longer.samples} == {
        "linear_dense_f32_nchw__cublas",
        "linear_dense_f32_nchw__cublas_fused",
    }
    assert {sample.bytes_moved for sample in longer.elementwise} > {sample.bytes_moved for sample in before.elementwise}


def test_a_library_that_refuses_costs_one_problem(watch: Stopwatch, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = watch.gpu
    assert gpu is not None

    def refused(*_: object) -> None:
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nand more")

    monkeypatch.setattr(gpu, "graph", refused)
    monkeypatch.setattr("sparseplan.profiles.extend_profile.measure_elementwise", lambda **_: iter(()))
    with pytest.warns(SparseplanWarning, match="not measured: .*capturing$"):
        longer = extend_profile(gpu_profile([]), [LINEAR], machine=LIBRARIES_ALONE, registry=REGISTRY, watch=watch)
    assert longer.samples == ()


def test_problems_are_measured(watch: Stopwatch) -> None:
    records = list(measure_problems([LINEAR], kernel="all", machine=LIBRARIES_ALONE, registry=REGISTRY, watch=watch))
    assert len(records) == 2
    assert all(record.reason is None and record.time_s is not None for record in records)


def test_fresh_problems_are_those_of_a_gpu() -> None:
    found = list(islice(fresh_problems("quick", 1, seed=1, device="cuda"), 2 * len(GPU_FAMILIES)))
    assert {(problem.op, problem.dtype, problem.pattern) for problem in found} == {
        (family.op, family.dtype, family.pattern) for family in GPU_FAMILIES
    }
    assert {problem.sparsity for problem in found if problem.pattern == "2:4"} == {0.5}
    assert all(problem.op == "linear" for problem in under_families(LINEAR, seed=0, device="cuda"))


def test_a_profile_is_validated(tmp_path: Path, watch: Stopwatch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validate_command, "measuring_machine", lambda *_: LIBRARIES_ALONE)
    monkeypatch.setattr(validate_command, "stopwatch_of", lambda _: watch)
    monkeypatch.setattr(validate_command, "require_here", lambda *_, **__: None)
    monkeypatch.setattr(validate_command, "warn_of_versions", lambda *_: None)
    monkeypatch.setattr(validate_command, "GPU_HOSTS", ("channels_last", "graph"))
    table = validate_command.TimeTable(total_s=0.5, problem_s=0.01)
    monkeypatch.setattr(validate_command, "TIME_TABLES", {"quick": table})
    profile, problems = tmp_path / "gpu.json", tmp_path / "p.jsonl"
    save_profile(profile, gpu_profile([Problem(op="linear", n=n, c_in=512, c_out=512) for n in (1, 64)]))
    problems.write_text(LINEAR_TEXT)
    result = validate_command.validate(
        profile, out=tmp_path / "v.json", problems=problems, networks=[("zoo:lenet", (4, 1, 28, 28))]
    )
    assert result.machine == FINGERPRINT.gpu_model
    assert {each.kernel for each in result.predictions} >= {"linear_dense_f32_nchw__cublas"}
    assert result.networks[0].host in ("channels_last", "graph")


def test_a_network_is_launched_and_replayed() -> None:
    gpu = FakeGpu()
    model, x = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval(), torch.randn(2, 3, 6, 6)
    calls = network_calls(model, x, ("graph", "channels_last"), gpu_stopwatch(torch.device("cpu"), gpu))
    assert gpu.graphs == [1]
    assert gpu.waits == 1
    assert list(calls) == ["graph", "channels_last"]
    for call in calls.values():
        torch.testing.assert_close(call(), model(x).detach())
    assert hosts_here("cuda") == GPU_HOSTS


def test_a_network_that_cannot_be_recorded_is_launched_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = FakeGpu()

    def refused(*_: object) -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(gpu, "graph", refused)
    with pytest.warns(SparseplanWarning, match="not timed as a CUDA graph: operation not permitted"):
        calls = network_calls(
            nn.ReLU(), torch.randn(3), ("channels_last", "graph"), gpu_stopwatch(torch.device("cpu"), gpu)
        )
    assert list(calls) == ["channels_last"]


def test_the_operator_of_swapped_layers_is_there_for_both_devices() -> None:
    assert pruned_net()  # the runtime is imported with the test's network
    for key in ("CPU", "CUDA"):
        assert torch._C._dispatch_has_kernel_for_dispatch_key("sparseplan::run_layer", key)


def test_the_device_of_a_plan_is_that_of_its_kernels() -> None:
    assert device_of_plan(gpu_plan()) == "cuda"
    assert device_of_plan(gpu_plan().model_copy(update={"layers": ()})) == "cpu"


@without_a_gpu
def test_a_plan_for_a_gpu_needs_one() -> None:
    for failing in (lambda: planned_machine(gpu_plan()), lambda: compile_model(pruned_net(), gpu_plan())):
        with pytest.raises(UnsupportedError, match=r"for a GPU \(Synthetic GPU\), which is missing here: .*plan again"):
            failing()


def test_a_cpu_is_no_machine_for_it() -> None:
    from sparseplan.kernels.cpu import detect_machine

    with pytest.raises(UnsupportedError, match=r"layer conv1: kernel conv2d_blocks_f32_nhwc__triton.*a CUDA GPU only"):
        compile_model(pruned_net(), gpu_plan(), machine=detect_machine())


@without_a_gpu
@pytest.mark.parametrize("command", ["validate", "extend", "measure", "bench"])
def test_commands_say_that_the_device_is_missing(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    profile, problems, out = tmp_path / "gpu.json", tmp_path / "p.jsonl", tmp_path / "out.json"
    save_profile(profile, gpu_profile([LINEAR]))
    problems.write_text(LINEAR_TEXT)
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    save_plan(folder.plan, gpu_plan())
    arguments = {
        "validate": ["validate", "--profile", str(profile), "--out", str(out)],
        "extend": ["profile", "--extend", str(profile), "--model", "zoo:lenet", "--input", "1,1,28,28"],
        "measure": ["measure", str(problems), "--out", str(out), "--device", "cuda"],
        "bench": ["bench", str(folder.path)],
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SparseplanWarning)
        assert main(arguments[command]) == 2
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1, error
    assert "GPU" in error
    assert not out.exists()
