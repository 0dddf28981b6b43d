"""`make test-gpu` without a GPU: what it lays out, checks, times and prints, with the CPU in place of the device."""

from __future__ import annotations

import json
import sys
import zipfile
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/gpu")]

from fake_gpu import Ticking  # noqa: E402
from gpu_profile import gpu_profile  # noqa: E402

from benchmarks.gpu import __main__ as bench  # noqa: E402
from benchmarks.gpu.compile_first import to_compile  # noqa: E402
from benchmarks.gpu.goals import Case, cases, measure_case, other_tiles  # noqa: E402
from benchmarks.gpu.networks import NETWORK_CASES, NetworkCase, NetworkRow, measure_networks  # noqa: E402
from benchmarks.gpu.unpack_bundle import lacking, unpack  # noqa: E402
from sparseplan.kernels.gpu.gather_product import innermost_of, specialisation, tile_of  # noqa: E402
from sparseplan.kernels.gpu.machine import gpu_machine  # noqa: E402
from sparseplan.kernels.problem import Problem  # noqa: E402
from sparseplan.kernels.registry import REGISTRY, kernel_named  # noqa: E402
from sparseplan.kernels.sas import wide_problem  # noqa: E402
from sparseplan.kernels.select import eligible  # noqa: E402
from sparseplan.kernels.spec import KernelSpec  # noqa: E402
from sparseplan.profiles.gpu_spread import gpu_problems  # noqa: E402
from sparseplan.profiles.stopwatch import gpu_stopwatch  # noqa: E402
from sparseplan.profiles.store import save_profile  # noqa: E402

HOPPER = gpu_machine((9, 0), has_triton=True, has_cusparselt=True)


def test_every_goal_has_a_sparse_and_a_dense_kernel() -> None:
    for case in cases():
        kernels = eligible(case.problem, HOPPER, REGISTRY)
        assert any(kernel.patterns == ("dense",) for kernel in (*kernels, *_dense(case.problem))), case.name
        assert any(kernel.patterns != ("dense",) for kernel in kernels), case.name
    assert sum(case.asked is not None for case in cases()) == 8


def _dense(problem: Problem) -> tuple[KernelSpec, ...]:
    return eligible(wide_problem(problem), HOPPER, REGISTRY)


def test_sas_is_timed_against_the_dense_doubled_layer() -> None:
    machine = gpu_machine((9, 0), has_triton=False, has_cusparselt=False)
    problem = Problem(op="linear", n=100, c_in=96, c_out=60).with_sparsity("sas:1:2", 0.5)
    case = Case(name="small", problem=problem, asked=1.4)
    rows = list(measure_case(case, machine=machine, device=torch.device("cpu"), gpu=Ticking()))
    assert {row.kernel for row in rows} == {
        *("linear_dense_f32_nchw__cublas", "linear_dense_f32_nchw__cublas_fused"),
        *("linear_sas_f32_halves_nchw__cublas", "linear_sas_f32_halves_nchw__cublas_fused"),
    }
    assert all(row.rel_error is not None and row.rel_error < 1e-5 and row.speedup is not None for row in rows)


def test_kernels_are_checked_and_timed() -> None:
    machine = gpu_machine((9, 0), has_triton=False, has_cusparselt=False)
    problem = Problem(op="linear", n=100, c_in=96, c_out=64).with_sparsity("block:16x16", 0.5)
    case = Case(name="small", problem=problem, asked=2.0)
    rows = list(measure_case(case, machine=machine, device=torch.device("cpu"), gpu=Ticking()))
    assert rows[0].reason == "no kernel of this machine skips the zeros"
    timed = [row for row in rows if row.time_s is not None]
    assert {(row.launch, row.cache) for row in timed} == {("graph", "warm"), ("graph", "flushed"), ("eager", "warm")}
    assert {row.kernel for row in timed} == {"linear_dense_f32_nchw__cublas", "linear_dense_f32_nchw__cublas_fused"}
    assert all(row.rel_error is not None and row.rel_error < 1e-5 for row in timed)


def test_other_tiles_differ() -> None:
    found = list(other_tiles(tile_of(cases()[1].problem)))
    assert len(set(found)) == len(found) > 10


def test_the_table_shows_what_was_found(tmp_path: Path) -> None:
    machine = gpu_machine((9, 0), has_triton=False, has_cusparselt=False)
    case = Case(name="small", problem=Problem(op="linear", n=8, c_in=16, c_out=16), asked=2.0)
    rows = list(measure_case(case, machine=machine, device=torch.device("cpu"), gpu=Ticking()))
    (tmp_path / "goals.jsonl").write_text("".join(json.dumps(asdict(row)) + "\n" for row in rows))
    (tmp_path / "log.txt").write_text("=== goals\nit ended early\n")
    networks = [
        NetworkRow(case="left", asked=1.3, reason="left out, no time"),
        NetworkRow(
            case="planned",
            asked=1.3,
            status="optimal",
            predicted_dense_s=2e-3,
            predicted_planned_s=1.5e-3,
            dense_s=3e-3,
            dense_host="compile_graph",
            planned_s=2e-3,
            planned_host="graph",
            speedup=1.5,
            swapped=9,
            reverted=2,
            output_error=1e-3,
            shipped="planned",
        ),
    ]
    (tmp_path / "networks.jsonl").write_text("".join(json.dumps(asdict(row)) + "\n" for row in networks))
    table = bench._table(tmp_path, {"goals": "done (1 s)", "tune": "left out, no time"})
    assert "linear_dense_f32_nchw__cublas_fused" in table
    assert "(asked 2.0x)" in table
    assert "left out, no time" in table
    assert "3.000 (compile_graph) -> 2.000 (graph); 1.50x (asked 1.3x, optimal); 7 of 9 sparse layers kept" in table
    assert "it ended early" in table
    before_the_tests = list(bench.PART_S)[: list(bench.PART_S).index("gpu-tests")]
    assert sum(bench.PART_S[part] for part in before_the_tests) <= bench.TOTAL_S - bench.LEAST_S
    assert bench.TOTAL_S < 9 * 60


def test_planned_networks_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU with torch's kernels alone, so that the plan stays dense: the way through all the steps."""
    monkeypatch.setattr("sparseplan.runtime.bench.hosts_here", lambda _: ("channels_last", "graph"))
    machine = gpu_machine((9, 0), has_triton=False, has_cusparselt=False)
    monkeypatch.setattr("sparseplan.commands.plan.machine_of", lambda *_: machine)
    layers = [Problem(op="linear", n=n, c_in=512, c_out=512, dtype="bfloat16") for n in (1, 64)]
    layers += [Problem(op="conv2d", n=4, c_in=c, c_out=c, h_in=12, w_in=12, dtype="bfloat16") for c in (16, 64)]
    save_profile(tmp_path / "gpu.json", gpu_profile(layers))
    (planned, late) = measure_networks(
        2 * (NetworkCase(model="zoo:lenet", shape=(4, 1, 28, 28), speedup=1.1),),
        profile=tmp_path / "gpu.json",
        folder=tmp_path,
        machine=machine,
        watch=gpu_stopwatch(torch.device("cpu"), Ticking()),
        until_s=_Once(),  # type: ignore[arg-type]
    )
    assert planned.reason is None
    assert (planned.status, planned.swapped) == ("not_worth_it", 0)
    # The fake clock ticks once a sample, of as many calls as the host's clock finds in its span.
    assert planned.dense_s is not None
    assert planned.planned_s is not None
    assert 0.2 < planned.dense_s / planned.planned_s < 5.0
    assert late.reason == "left out, no time"
    assert (tmp_path / "plan-lenet-b4.json").exists()
    assert {(case.model, case.shape[0]) for case in NETWORK_CASES} == {
        (model, batch) for model in ("zoo:resnet50", "zoo:vit_small") for batch in (1, 64)
    }


def test_each_code_is_compiled_once() -> None:
    problems = [case.problem for case in cases()] + list(gpu_problems("standard")[:250])
    found = to_compile(problems, HOPPER)
    assert 10 < len(found) < 130
    turned = [name for name, _ in found if "_turned_" in name]
    assert 0 < len(turned) < len(found)
    kinds = {specialisation(problem, innermost_of(kernel_named(name))) for name, problem in found}
    assert len(kinds) == len(found)
    wide = Problem(op="linear", n=512, c_in=256, c_out=256, dtype="bfloat16").with_sparsity("block:64x64", 0.5)
    other = replace(wide, n=640, c_in=320)
    assert to_compile([wide, other, replace(wide, c_in=250)], HOPPER) == tuple(
        ("linear_blocks_bf16_nchw__triton", problem) for problem in (wide, replace(wide, c_in=250))
    )


class _Once:
    """A moment that has not come at the first look, and has at the next."""

    looks = 0

    def __lt__(self, now_s: float) -> bool:
        self.looks += 1
        return self.looks > 1


def test_the_machine_is_described_without_a_gpu(tmp_path: Path) -> None:
    assert bench._cpu(tmp_path) == 0
    said = (tmp_path / "machine.txt").read_text()
    assert "instruction sets that sparseplan uses here: baseline" in said
    assert "flags of interest: " in said
    assert (tmp_path / "lscpu.txt").stat().st_size > 100


def test_wheels_that_are_here_stay_packed(tmp_path: Path) -> None:
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    for name in ("pytest-1-py3-none-any", f"sparseplan-1-{tag}-{tag}-linux_x86_64", "absent_package-1-py3-none-any"):
        with zipfile.ZipFile(tmp_path / f"{name}.whl", "w") as archive:
            archive.writestr(f"{name.split('-')[0]}/__init__.py", "")
    assert unpack(tmp_path, tmp_path / "site") == ["absent_package", "sparseplan"]
    assert not (tmp_path / "site/pytest").exists()
    with zipfile.ZipFile(tmp_path / "other-1-cp39-cp39-linux_x86_64.whl", "w") as archive:
        archive.writestr("other/__init__.py", "")
    with pytest.raises(SystemExit, match="is not for this Python"):
        unpack(tmp_path, tmp_path / "site")


def test_what_the_bundle_does_not_carry_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "benchmarks.gpu.unpack_bundle.NEEDED", {"torch": "torch", "absent-one": "no_module_of_this_name"}
    )
    assert lacking([]) == ["absent-one"]
    assert lacking(["absent_one"]) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_no_gpu_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks.gpu", "--out", str(tmp_path)])
    assert bench.main() == 2
    assert capsys.readouterr().err.startswith("no GPU: ")
