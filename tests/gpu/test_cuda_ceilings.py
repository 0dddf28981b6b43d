"""Ceilings of a GPU: the code runs on any device of torch, so the CPU stands in; names, units and counts of work."""

from __future__ import annotations

import pytest
import torch
from fake_gpu import Ticking

from sparseplan.profiles.cuda_ceilings import (
    CACHE_COPIES,
    LAUNCHES,
    REPEATS,
    Workload,
    measure_cuda_ceilings,
    workload_of,
)
from sparseplan.profiles.cuda_timing import CudaGpu
from sparseplan.profiles.gpu_state import UNKNOWN, GpuState, parse_gpu_state, read_gpu_state
from sparseplan.profiles.plausible import require_measured
from sparseplan.profiles.schema import Ceiling

SMALL = Workload(copy_bytes=1 << 16, cache_bytes=1 << 12, matrix=64)
EVERYWHERE = ("gpu_f32", "gpu_tf32", "gpu_tf32x3", "gpu_f16", "gpu_bf16")


def _measured(state: GpuState = UNKNOWN) -> dict[str, Ceiling]:
    found = measure_cuda_ceilings(torch.device("cpu"), Ticking(), workload=SMALL, state=lambda: state)
    require_measured(found)
    return {ceiling.name: ceiling for ceiling in found}


def test_rates_count_the_work() -> None:
    found = _measured()
    for unit in EVERYWHERE[:2] + EVERYWHERE[3:]:
        assert found[f"flop_per_s:{unit}"].value == pytest.approx(2 * 64**3 / 1e-3)
    assert found["flop_per_s:gpu_tf32x3"].value == pytest.approx(2 * 64**3 / 3e-3)
    assert found["bandwidth_byte_per_s:dram"].value == pytest.approx(2 * (1 << 16) / 1e-3)
    assert found["bandwidth_byte_per_s:l2"].value == pytest.approx(2 * (1 << 12) * CACHE_COPIES / 1e-3)
    for name in ("latency_s:launch_eager", "latency_s:launch_graph"):
        assert found[name].value == pytest.approx(1e-3 / LAUNCHES)
    assert "flop_per_s:gpu_bf16_2:4" not in found
    assert "clock_hz" not in found


def test_nothing_is_timed_that_has_not_ended() -> None:
    gpu = Ticking()
    found = measure_cuda_ceilings(torch.device("cpu"), gpu, workload=SMALL, state=lambda: UNKNOWN)
    series = len(found) - 1  # three TF32 products are not measured again
    assert gpu.waits == series * (1 + REPEATS)


def test_the_precision_of_torch_is_left_as_it_was() -> None:
    before = torch.get_float32_matmul_precision()
    _measured()
    assert torch.get_float32_matmul_precision() == before


def test_clocks_are_the_drivers() -> None:
    found = _measured(parse_gpu_state("1980, 3201, 1980, 412.35, 51, 580.159.03\n"))
    assert (found["clock_hz"].value, found["clock_hz"].unit) == (1980e6, "Hz")


def test_the_drivers_words() -> None:
    found = parse_gpu_state("345, 3201, 1980, 75.10, [N/A], 580.159.03")
    assert (found.clock_hz, found.memory_clock_hz, found.power_w) == (345e6, 3201e6, 75.1)
    assert (found.temperature_c, found.driver_version) == (None, "580.159.03")
    assert parse_gpu_state("Unable to determine the device handle") == UNKNOWN


def test_a_machine_without_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert read_gpu_state() == UNKNOWN


@pytest.mark.needs_gpu
def test_this_gpu() -> None:
    cache_bytes = torch.cuda.get_device_properties(0).L2_cache_size
    found = measure_cuda_ceilings(torch.device("cuda"), CudaGpu(), workload=workload_of(cache_bytes))
    require_measured(found)
    rates = {ceiling.name: ceiling.value for ceiling in found}
    assert rates["flop_per_s:gpu_bf16"] > rates["flop_per_s:gpu_f32"] > 1e12
    assert rates["bandwidth_byte_per_s:l2"] > rates["bandwidth_byte_per_s:dram"]
    assert rates["latency_s:launch_graph"] < rates["latency_s:launch_eager"]
