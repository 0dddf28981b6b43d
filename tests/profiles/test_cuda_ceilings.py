"""Ceilings of a GPU: the code runs on any device of torch, so the CPU stands in; names, units and counts of work."""

from __future__ import annotations

import pytest
import torch

from sparseplan.profiles import cuda_ceilings
from sparseplan.profiles.cuda_ceilings import LAUNCHES, REPEATS, Workload, measure_cuda_ceilings
from sparseplan.profiles.plausible import require_measured

SMALL = Workload(copy_bytes=1 << 16, matrix=64)


def test_names_and_plausible_numbers() -> None:
    waited = []
    found = measure_cuda_ceilings(torch.device("cpu"), lambda: waited.append(1), workload=SMALL)
    assert {(c.name, c.unit) for c in found} == {
        ("bandwidth_byte_per_s:cuda:copy", "byte/s"),
        ("flop_per_s:cuda:float32", "flop/s"),
        ("flop_per_s:cuda:bfloat16", "flop/s"),
        ("flop_per_s:cuda:float16", "flop/s"),
        ("latency_s:cuda:launch", "s"),
    }
    require_measured(found)
    # Once before each series and once in each of its runs: nothing is timed that has not ended.
    assert len(waited) == 5 * (1 + REPEATS)


def test_rates_count_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under a clock that takes a millisecond a look, every timed run takes one."""
    ticks = iter(range(10**6))
    monkeypatch.setattr(cuda_ceilings.time, "perf_counter", lambda: next(ticks) * 1e-3)
    found = measure_cuda_ceilings(torch.device("cpu"), lambda: None, workload=SMALL)
    rates = {c.name: c.value for c in found}
    assert rates["bandwidth_byte_per_s:cuda:copy"] == pytest.approx(2 * (1 << 16) / 1e-3)
    assert rates["flop_per_s:cuda:float16"] == pytest.approx(2 * 64**3 / 1e-3)
    assert rates["latency_s:cuda:launch"] == pytest.approx(1e-3 / LAUNCHES)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_this_gpu() -> None:
    found = measure_cuda_ceilings(torch.device("cuda"), torch.cuda.synchronize)
    require_measured(found)
    assert {c.name: c.value for c in found}["flop_per_s:cuda:float16"] > 1e12
