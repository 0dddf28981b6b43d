"""Ceilings: names, limits, and the real ones of this machine."""

from __future__ import annotations

import pytest
from profile_samples import FINGERPRINT, FakeProbes

from sparseplan.kernels import _native
from sparseplan.kernels.cpu import detect_machine
from sparseplan.kernels.errors import UnsupportedError
from sparseplan.kernels.spec import Unit
from sparseplan.profiles.ceilings import BUDGET_S, Access, measure_ceilings, probe_bytes, thread_counts
from sparseplan.profiles.fingerprint import read_fingerprint


def test_names_units_and_threads() -> None:
    found = measure_ceilings(FINGERPRINT, FakeProbes(), threads=2)
    rates = {(c.name, c.threads): c.value for c in found}
    assert rates["flop_per_s:fma_f32", 2] == 2e11
    assert rates["bandwidth_byte_per_s:dram", 1] == 2e10
    assert rates["bandwidth_byte_per_s:dram:store", 2] == 2e10
    assert rates["bandwidth_byte_per_s:l1:copy", 1] == 3e11
    assert rates["latency_s:timer", 1] == 2e-8
    assert {c.name for c in found if c.threads == 2} == {
        "flop_per_s:fma_f32",
        "flop_per_s:fma_f16",
        "flop_per_s:dot_bf16",
        "flop_per_s:dot_int8",
        "flop_per_s:tile_bf16",
        "flop_per_s:tile_int8",
        "bandwidth_byte_per_s:l1",
        "bandwidth_byte_per_s:l1:store",
        "bandwidth_byte_per_s:l1:copy",
        "bandwidth_byte_per_s:l2",
        "bandwidth_byte_per_s:l2:store",
        "bandwidth_byte_per_s:l2:copy",
        "bandwidth_byte_per_s:l3",
        "bandwidth_byte_per_s:l3:store",
        "bandwidth_byte_per_s:l3:copy",
        "bandwidth_byte_per_s:dram",
        "bandwidth_byte_per_s:dram:store",
        "bandwidth_byte_per_s:dram:copy",
        "latency_s:parallel_region",
        "latency_s:torch_op",
        "clock_hz",
    }
    assert all(c.low <= c.value <= c.high for c in found)


def test_a_missing_unit_has_no_ceiling() -> None:
    names = {c.name for c in measure_ceilings(FINGERPRINT, FakeProbes(bf16=False, fp16=False), threads=1)}
    assert names.isdisjoint({"flop_per_s:dot_bf16", "flop_per_s:fma_f16"})
    assert "flop_per_s:fma_f32" in names


def test_absurd_values_are_refused() -> None:
    sizes = probe_bytes(FINGERPRINT, 1)
    with pytest.raises(UnsupportedError, match=r"bandwidth_byte_per_s:l1.*1e\+20"):
        measure_ceilings(FINGERPRINT, FakeProbes(broken={sizes["l1"]: 1e20}), threads=1)
    with pytest.raises(UnsupportedError, match="bandwidth_byte_per_s:dram at 1 threads"):
        measure_ceilings(FINGERPRINT, FakeProbes(broken={sizes["dram"]: 3e11}), threads=1)


def test_each_access_is_judged_by_itself() -> None:
    sizes = probe_bytes(FINGERPRINT, 1)
    probes = FakeProbes(broken={sizes["l2"]: 3.5e11}, broken_access="store")
    with pytest.raises(UnsupportedError, match=r"l2:store at 1 threads is 3\.5e\+11 .*l1:store only 2e\+11"):
        measure_ceilings(FINGERPRINT, probes, threads=1)


def test_the_clock_and_how_far_it_strays() -> None:
    (clock,) = (c for c in measure_ceilings(FINGERPRINT, FakeProbes(), threads=1) if c.name == "clock_hz")
    assert clock.value == pytest.approx(4e9 / 1.01)
    # The interrupted chains, far slower, are left out.
    assert (clock.low, clock.high) == (pytest.approx(4e9 / 1.02), pytest.approx(4e9))


def test_probes_share_the_budget() -> None:
    spent: list[float] = []

    class Counting(FakeProbes):
        def peak_flop_per_s(self, unit: Unit, seconds: float, threads: int) -> float | None:
            spent.append(seconds)
            return super().peak_flop_per_s(unit, seconds, threads)

        def bandwidth_byte_per_s(
            self, access: Access, bytes_per_thread: int, seconds: float, threads: int, repeats: int
        ) -> list[float]:
            spent.append(seconds * repeats)
            return super().bandwidth_byte_per_s(access, bytes_per_thread, seconds, threads, repeats)

    measure_ceilings(FINGERPRINT, Counting(), threads=8)
    assert sum(spent) == pytest.approx(BUDGET_S)


def test_a_busy_machine_is_refused() -> None:
    with pytest.raises(UnsupportedError, match=r"parallel_region.*0\.008.*stop other work"):
        measure_ceilings(FINGERPRINT, FakeProbes(region_latency_s=0.008), threads=2)


def test_probe_sizes_lie_inside_their_level() -> None:
    for threads in (1, 2, 8):
        sizes = probe_bytes(FINGERPRINT, threads)
        assert sizes["l1"] < FINGERPRINT.l1d_bytes < sizes["l2"] < FINGERPRINT.l2_bytes
        assert threads * sizes.get("l3", 0) <= FINGERPRINT.l3_bytes < threads * sizes["dram"]
    unknown = FINGERPRINT.model_copy(update={"l1d_bytes": 0, "l2_bytes": 0, "l3_bytes": 0})
    assert list(probe_bytes(unknown, 1)) == ["l1", "dram"]


def test_thread_counts() -> None:
    assert thread_counts(1) == (1,)
    assert thread_counts(4) == (1, 2, 3, 4)
    assert thread_counts(6) == (1, 2, 4, 6)
    assert thread_counts(16) == (1, 2, 4, 8, 16)


def test_this_machine_has_plausible_ceilings() -> None:
    machine = detect_machine()
    found = measure_ceilings(read_fingerprint(machine), _native, threads=1)
    rates = {c.name: c.value for c in found}
    assert 1e9 < rates["flop_per_s:fma_f32"] < 1e13
    assert rates["bandwidth_byte_per_s:l1"] > 0.5 * rates["bandwidth_byte_per_s:dram"]
    assert 1e-8 < rates["latency_s:torch_op"] < 1e-3
    assert 5e8 < rates["clock_hz"] < 1e10
    # Two units of the widest vectors do at most 64 multiply-adds of float32 a cycle.
    assert rates["flop_per_s:fma_f32"] < 1.3 * 2 * 64 * rates["clock_hz"]
    assert rates["latency_s:timer"] < 1e-5
