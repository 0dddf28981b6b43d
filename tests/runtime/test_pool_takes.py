"""Pooled over processes, intervals cover what moves between them."""

import json
from pathlib import Path

import pytest
from planned_net import plan_of

from sparseplan.kernels.spec import Machine
from sparseplan.perfmodel.schema import Interval
from sparseplan.profiles.timing import TimeStats
from sparseplan.runtime.bench import _all_rivals, _fast_rivals
from sparseplan.runtime.pool_layers import in_doubt, pool_layers
from sparseplan.runtime.pool_takes import pool_takes
from sparseplan.runtime.schema import Host, LayerTime, NetworkTime, StoredTake, Take, Variant
from sparseplan.runtime.store import load_measurements, load_take, save_take


def _time(variant: Variant, median_s: float, host: Host = "compile") -> NetworkTime:
    return NetworkTime(
        variant=variant,
        host=host,
        dtype="float32",
        time_s=TimeStats(median=median_s, low=0.99 * median_s, high=1.01 * median_s, n=9),
    )


def _take(*networks: NetworkTime) -> Take:
    return Take(networks=networks, layers=(), output_error=0.0, clock_hz=())


def _layer(name: str, ratio: float) -> LayerTime:
    def stats(median_s: float) -> TimeStats:
        return TimeStats(median=median_s, low=0.99 * median_s, high=1.01 * median_s, n=9)

    return LayerTime(
        name=name,
        kernel="sparse",
        dense_kernel="dense",
        time_s=stats(ratio),
        dense_time_s=stats(1.0),
        predicted_time_s=Interval(median=0.5, low=0.4, high=0.6),
        max_abs_error=ratio,
        reverted=ratio >= 1.0,
    )


def test_a_layer_goes_back_by_what_all_processes_say() -> None:
    first = [_layer("sure", 0.5), _layer("lucky", 0.95), _layer("unlucky", 1.1), _layer("lost", 2.0)]
    assert in_doubt(first) == ("lucky", "unlucky")
    again = [[_layer("lucky", 1.2), _layer("unlucky", 0.8)], [_layer("lucky", 1.1), _layer("unlucky", 0.9)]]
    pooled = pool_layers([first, *again])
    assert [layer.name for layer in pooled] == ["sure", "lucky", "unlucky", "lost"]
    assert [layer.reverted for layer in pooled] == [False, True, False, True]
    assert pooled[1].time_s.median == pytest.approx(1.1)
    assert pooled[1].time_s.low < 0.95
    assert pooled[1].time_s.high > 1.2
    assert pooled[0].time_s.low == pytest.approx(first[0].time_s.low)


def test_one_take_keeps_its_interval() -> None:
    pooled = pool_takes([_take(_time("dense", 2.0), _time("planned", 1.0))])
    assert pooled.speedup.median == pytest.approx(2.0)
    assert pooled.speedup.low == pytest.approx(2.0 * 0.99 / 1.01)
    assert pooled.speedup.high == pytest.approx(2.0 * 1.01 / 0.99)


def test_the_interval_spans_the_processes() -> None:
    takes = [_take(_time("dense", 2.0), _time("planned", planned_s)) for planned_s in (1.0, 1.25, 0.8)]
    pooled = pool_takes(takes)
    assert pooled.speedup.median == pytest.approx(2.0)
    assert pooled.speedup.low == pytest.approx(1.6 * 0.99 / 1.01)
    assert pooled.speedup.high == pytest.approx(2.5 * 1.01 / 0.99)
    assert pooled.best_planned.time_s.low < 0.8
    assert pooled.best_planned.time_s.high > 1.25


def test_the_best_way_is_that_of_all_processes() -> None:
    first = _take(
        _time("dense", 2.0), _time("dense", 2.1, "eager"), _time("dense", 3.0, "openvino"), _time("planned", 1)
    )
    second = _take(_time("dense", 2.4), _time("dense", 2.1, "eager"), _time("planned", 1))
    pooled = pool_takes([first, second])
    assert pooled.best_dense.host == "eager"
    assert pooled.speedup.median == pytest.approx(2.1)
    assert len(pooled.networks) == 4


def test_later_takes_leave_out_what_is_far_slower() -> None:
    first = _take(
        _time("dense", 2.0), _time("dense", 2.2, "eager"), _time("dense", 3.0, "openvino"), _time("planned", 1)
    )
    assert _fast_rivals(first) == [
        ("dense", "compile", "float32"),
        ("dense", "eager", "float32"),
        ("planned", "compile", "float32"),
    ]


def test_openvino_runs_dense_networks_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparseplan.runtime.bench.hosts_here", lambda _: ("eager", "openvino"))
    assert [rival[:2] for rival in _all_rivals(plan_of(), Machine(isa=("baseline",)))] == [
        ("dense", "eager"),
        ("planned", "eager"),
        ("dense", "openvino"),
    ]


def test_takes_survive_the_disk(tmp_path: Path) -> None:
    stored = StoredTake(measured="abc", take=_take(_time("dense", 2.0)))
    save_take(tmp_path / "take.json", stored)
    assert load_take(tmp_path / "take.json") == stored


def test_old_measurements_are_read() -> None:
    old = Path(__file__).with_name("golden_measurements_v1.json")
    assert json.loads(old.read_text())["schema_version"] == 1
    measurements = load_measurements(old)
    assert (measurements.processes, measurements.clock_hz) == (1, ())
