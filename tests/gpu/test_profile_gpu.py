"""A GPU's profile, from measuring to a model and a plan: on the CPU in place of the device, with a made-up clock."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from fake_gpu import Ticking
from gpu_profile import FINGERPRINT, gpu_profile
from gpu_samples import HOPPER

from sparseplan.cli import main
from sparseplan.kernels.gpu.machine import detect_gpu, gpu_machine
from sparseplan.kernels.problem import Problem
from sparseplan.kernels.registry import REGISTRY
from sparseplan.perfmodel.fit import fit_performance_model
from sparseplan.perfmodel.limits import limits_of
from sparseplan.perfmodel.network import GPU_ASSUMED
from sparseplan.profiles import profile_gpu as profile_gpu_module
from sparseplan.profiles.cuda_ceilings import Workload
from sparseplan.profiles.cuda_timing import CudaGpu
from sparseplan.profiles.fingerprint import read_fingerprint
from sparseplan.profiles.gpu_spread import gpu_problems
from sparseplan.profiles.measure_elementwise import SIZES_BYTES
from sparseplan.profiles.profile_gpu import GpuBench, profile_gpu
from sparseplan.profiles.store import load_profile, save_profile

LINEAR = Problem(op="linear", n=64, c_in=96, c_out=64)
LARGE = Problem(op="linear", n=4096, c_in=4096, c_out=4096, dtype="bfloat16")
MODEL = """
from torch import nn
def model():
    return nn.Sequential(nn.Linear(2048, 2048), nn.ReLU(), nn.Linear(2048, 2048))
"""


def test_a_profile_is_measured_stored_and_fitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile_gpu_module, "SIZES_BYTES", SIZES_BYTES[:3])
    bench = GpuBench(
        device=torch.device("cpu"),
        gpu=Ticking(),
        fingerprint=FINGERPRINT,
        workload=Workload(copy_bytes=1 << 16, cache_bytes=1 << 12, matrix=64),
    )
    machine = gpu_machine((9, 0), has_triton=False, has_cusparselt=False)
    found = profile_gpu("quick", machine=machine, registry=REGISTRY, bench=bench, problems=[LINEAR], total_s=60.0)
    save_profile(tmp_path / "gpu.json", found)
    profile = load_profile(tmp_path / "gpu.json")
    assert profile == found
    assert profile.device == "cuda"
    names = {sample.kernel for sample in profile.samples}
    assert names == {"linear_dense_f32_nchw__cublas", "linear_dense_f32_nchw__cublas_fused"}
    assert profile.stability
    assert {sample.operation for sample in profile.elementwise} >= {"relu", "batch_norm", "max_pool"}
    model = fit_performance_model(profile, REGISTRY)
    assert model.predict(LINEAR, "linear_dense_f32_nchw__cublas").median_s > 0


def test_problems_are_a_spread() -> None:
    found = gpu_problems("quick")
    assert len(found) > 500
    assert len(set(found)) == len(found)
    first = found[:60]
    assert {problem.op for problem in first} == {"conv2d", "linear"}
    assert {problem.dtype for problem in first} == {"bfloat16", "float16", "float32"}
    assert {"dense", "block:64x64", "2:4", "shape"} <= {problem.pattern for problem in first}


def test_limits_of_a_gpu_grow_with_busy_multiprocessors() -> None:
    limits = limits_of(gpu_profile([]))
    (half, whole) = limits.flop_rate("gpu_bf16", torch.tensor([54.0, 108.0]).numpy())
    assert (half, whole) == pytest.approx((156e12, 312e12))
    small, large = limits.bandwidth(torch.tensor([1e3, 1e9]).numpy(), torch.tensor([108.0, 108.0]).numpy())
    assert (small, large) == pytest.approx((4.5e12, 2.0e12))


def test_the_model_foresees_where_blocks_pay() -> None:
    rows = [Problem(op="linear", n=n, c_in=2048, c_out=2048, dtype="bfloat16") for n in (64, 512, 4096)]
    sparse = [row.with_sparsity("block:64x64", sparsity) for row in rows for sparsity in (0.5, 0.75, 0.9)]
    model = fit_performance_model(gpu_profile([*rows, *sparse]), REGISTRY)
    assert model.network == GPU_ASSUMED
    dense = model.predict(LARGE, "linear_dense_bf16_nchw__cublas_fused").median_s
    times = [
        model.predict(LARGE.with_sparsity("block:64x64", sparsity), "linear_blocks_bf16_nchw__triton").median_s
        for sparsity in (0.1, 0.75, 0.9)
    ]
    assert times[0] > dense > times[1] > times[2]


def test_a_plan_for_a_gpu_is_made_without_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    profile, source, out = tmp_path / "gpu.json.gz", tmp_path / "net.py", tmp_path / "plan.json"
    rows = [Problem(op="linear", n=n, c_in=2048, c_out=2048, dtype="bfloat16") for n in (512, 4096)]
    sparse = [row.with_sparsity("block:64x64", sparsity) for row in rows for sparsity in (0.5, 0.7, 0.8, 0.9)]
    save_profile(profile, gpu_profile([*rows, *sparse]))
    source.write_text(MODEL)
    arguments = ["--model", f"{source}:model", "--input", "4096,2048", "--profile", str(profile), "--out", str(out)]
    options = ["--dtype", "bfloat16", "--patterns", "block:64x64", "--target-speedup", "1.2"]
    assert main(["plan", *arguments, *options]) == 0
    plan = json.loads(out.read_text())
    chosen = {layer["chosen"]["kernel"] for layer in plan["layers"]}
    assert "linear_blocks_bf16_nchw__triton" in chosen
    assert "Synthetic GPU" in plan["machine"]
    assert capsys.readouterr().err.count("warning") == 1


def test_profile_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    assert main(["profile", "--device", "cuda", "--out", str(tmp_path / "p.json")]) == 2
    error = capsys.readouterr().err
    assert "no CUDA GPU" in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "p.json").exists()


@pytest.mark.needs_gpu
def test_this_gpu_is_profiled(tmp_path: Path) -> None:
    machine = detect_gpu()
    bench = GpuBench(device=torch.device("cuda"), gpu=CudaGpu(), fingerprint=read_fingerprint(machine))
    problems = [LARGE, LARGE.with_sparsity("block:64x64", 0.75)]
    found = profile_gpu("quick", machine=machine, registry=REGISTRY, bench=bench, problems=problems, total_s=60.0)
    save_profile(tmp_path / "gpu.json", found)
    assert load_profile(tmp_path / "gpu.json").fingerprint.gpu is not None
    assert found.samples
    assert HOPPER.device == machine.device
