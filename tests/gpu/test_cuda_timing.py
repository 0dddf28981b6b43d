"""Timing on a GPU: which spans are read, over how many calls, with which state of the cache."""

from __future__ import annotations

import pytest
import torch
from fake_gpu import FakeGpu

from sparseplan.profiles.cuda_timing import MIN_SPAN_S, CudaGpu, CudaTiming


def _measure(timing: CudaTiming, gpu: FakeGpu, *seconds: float) -> list[float]:
    calls = [gpu.takes(each) for each in seconds]
    return [time_s.median for time_s in timing.measure_alternating(calls, budget_s=0.05)]


@pytest.mark.parametrize("launch", ["graph", "eager"])
def test_the_time_of_one_call(launch: str) -> None:
    gpu = FakeGpu()
    found = _measure(CudaTiming(gpu=gpu, launch=launch), gpu, 3e-6, 5e-4)  # type: ignore[arg-type]
    assert found == pytest.approx([3e-6, 5e-4])
    assert gpu.flushes == 0


def test_short_calls_share_a_graph_and_its_launch() -> None:
    gpu = FakeGpu(launch_s=1e-5)
    (found,) = _measure(CudaTiming(gpu=gpu), gpu, 2e-6)
    # The pace of the first graph follows the host's clock, on which the fake call takes next to nothing.
    assert gpu.graphs[0] > 1
    assert found == pytest.approx(2e-6 + 1e-5 / gpu.graphs[-1])
    assert gpu.hidden >= 7


def test_a_graph_is_long_enough_by_the_clock_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the host's clock a call takes longer than a whole sample need be, on the device's a hundredth of that."""
    gpu = FakeGpu()
    now_s = [0.0]

    def host_clock() -> float:
        now_s[0] += 2 * MIN_SPAN_S
        return now_s[0]

    monkeypatch.setattr("sparseplan.profiles.cuda_timing.time.perf_counter", host_clock)
    (found,) = _measure(CudaTiming(gpu=gpu), gpu, MIN_SPAN_S / 100)
    assert gpu.graphs[0] == 1
    assert gpu.graphs[1] in (100, 101)
    assert found == pytest.approx(MIN_SPAN_S / 100)


def test_a_flushed_cache_holds_for_one_call() -> None:
    gpu = FakeGpu(launch_s=1e-5)
    timing = CudaTiming(gpu=gpu, cache="flushed")
    (taken,) = timing.measure_alternating([gpu.takes(1e-6)], budget_s=0.05)
    assert gpu.graphs == [1]
    assert gpu.flushes == taken.n
    assert taken.median == pytest.approx(1.1e-5)


@pytest.mark.needs_gpu
def test_a_graph_of_small_kernels_beats_their_launches() -> None:
    one = torch.ones(1, device="cuda")
    times = {
        launch: CudaTiming(gpu=CudaGpu(), launch=launch).measure_alternating(  # type: ignore[arg-type]
            [lambda: one.add_(1.0)], budget_s=0.2
        )[0]
        for launch in ("graph", "eager")
    }
    assert times["graph"].median < times["eager"].median


@pytest.mark.needs_gpu
def test_a_flushed_cache_is_slower_than_a_warm_one() -> None:
    x = torch.randn(1 << 22, device="cuda")
    y = torch.empty_like(x)
    warm, flushed = (
        CudaTiming(gpu=CudaGpu(), cache=cache).measure_alternating([lambda: y.copy_(x)], budget_s=0.2)[0]  # type: ignore[arg-type]
        for cache in ("warm", "flushed")
    )
    assert warm.median < flushed.median
