"""The guide on scripted histories, and guided training on digits: un-pruning, stopping, the target time, resuming."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from sparseplan.kernels.errors import InputError
from sparseplan.kernels.problem import Problem
from sparseplan.perfmodel.schema import Interval
from sparseplan.planner.schema import Candidate, LayerPlan, Plan, Target, Totals
from sparseplan.trainer import Interrupted
from sparseplan.trainer.data import DataSplits
from sparseplan.trainer.guide import STABLE_CHANGE, WINDOW, Guide, stabilised
from sparseplan.trainer.guided import GuideOptions, guided_assignment
from sparseplan.trainer.loop import train
from sparseplan.trainer.projection import LayerProjection, NetworkProjection, guided_plan, projection_of
from sparseplan.trainer.schema import GuideMethod, TrainConfig
from sparseplan.trainer.store import RunFolder

MakeNet = Callable[..., nn.Module]


def layer(name: str, *, lower: float | None, upper: float | None = None, dense_s: float = 1.0) -> LayerProjection:
    return LayerProjection(
        name=name,
        kernel="sparse",
        calls=1,
        dense_s=dense_s,
        lower=lower,
        upper=upper,
        sparsities=() if lower is None else (lower, 1.0),
        times_s=() if lower is None else (dense_s, 0.1 * dense_s),
    )


def network(*layers: LayerProjection, target_s: float = 1.0) -> NetworkProjection:
    return NetworkProjection(layers={each.name: each for each in layers}, fixed_s=0.5, target_s=target_s)


def play(guide: Guide, history: Sequence[float], name: str = "a") -> list[tuple[str, int]]:
    """What is decided on a scripted history, and at which observation."""
    return [
        (decision.action, number)
        for number, sparsity in enumerate(history, start=1)
        for decision in guide.observe({name: sparsity}, step=number)
    ]


@pytest.mark.parametrize(
    ("history", "decided"),
    [
        ([0.1, 0.3, 0.5, 0.7, 0.9], []),
        ([0.5, 0.8, 0.97, 0.99], [("stop", 3)]),
        ([0.3, 0.4, 0.4, 0.4, 0.4], [("restore", 5)]),
        ([0.4, 0.4, 0.4], []),
        # Not begun yet.
        ([0.0] * 6 + [0.3, 0.7], []),
        # Still growing, though slowly: not stabilised.
        ([0.40, 0.402, 0.404, 0.406, 0.408], []),
        # Stable above the lower bound: worth keeping.
        ([0.8] * 8, []),
        # Stable only after a change.
        ([0.2, 0.2, 0.2, 0.3, 0.3, 0.3, 0.3, 0.3], [("restore", 7)]),
    ],
)
def test_the_guide_on_scripted_histories(history: list[float], decided: list[tuple[str, int]]) -> None:
    assert play(Guide(network(layer("a", lower=0.6, upper=0.95))), history) == decided


def test_stabilised_is_its_definition() -> None:
    assert not stabilised([0.5] * (WINDOW - 1))
    assert stabilised([0.1, *[0.5] * WINDOW])
    assert not stabilised([0.5] * (WINDOW - 1) + [0.5 + STABLE_CHANGE])


def test_layers_without_potential_are_never_pruned() -> None:
    guide = Guide(network(layer("a", lower=None), layer("b", lower=0.6)))
    assert [(each.action, each.layer) for each in guide.decisions] == [("never", "a")]
    assert guide.open_layers == ("b",)
    assert [each.name for each in guided_assignment(network(layer("a", lower=None), layer("b", lower=0.6)))] == ["b"]


def test_at_the_end_what_does_not_gain_is_restored() -> None:
    guide = Guide(network(layer("a", lower=0.6)))
    assert [each.action for each in guide.observe({"a": 0.5}, step=9, last=True)] == ["restore"]


def test_projected_times_follow_the_points_and_end_at_the_bounds() -> None:
    one = layer("a", lower=0.5, upper=0.75)
    assert [one.time_s(each) for each in (0.0, 0.4, 0.5)] == [1.0, 1.0, 1.0]
    assert one.time_s(0.75) == pytest.approx(0.55)
    assert one.time_s(0.99) == one.time_s(0.75)
    assert network(one).time_s({"a": 0.75}) == pytest.approx(1.05)


TWO = network(
    layer("conv2", lower=0.5, dense_s=1.0),
    layer("fc1", lower=0.995, dense_s=0.1),
    layer("fc2", lower=None, dense_s=0.1),
    target_s=1.2,
)


def guided(method: GuideMethod) -> dict[str, object]:
    return {"assignment": guided_assignment(TWO), "guide": GuideOptions(projection=TWO, method=method)}


CONFIG = TrainConfig(epochs=6, batch_size=16, learning_rate=0.02, prune_frac=0.67)


@pytest.mark.parametrize("method", ["l1", "magnitude", "surgery"])
def test_the_target_time_is_met_by_the_layers_that_gain(
    digits: DataSplits, make_net: MakeNet, tmp_path: Path, method: GuideMethod
) -> None:
    net = make_net()
    dense = {name: value.clone() for name, value in net.state_dict().items()}
    history = train(net, digits, config=CONFIG, run_dir=tmp_path, **guided(method))
    decided = {each.layer: each.action for each in history.decisions}
    assert decided["fc2"] == "never"
    assert decided["fc1"] == "restore"
    assert "conv2" not in decided
    planned = load_file(RunFolder(tmp_path).planned_weights)
    reached = {name: float((planned[f"{name}.weight"] == 0).double().mean()) for name in ("conv2", "fc1", "fc2")}
    assert reached["fc1"] == reached["fc2"] == 0.0
    assert TWO.time_s(reached) == pytest.approx(TWO.target_s, rel=0.01)
    assert history.test_accuracy_frac > 0.9
    assert not torch.equal(planned["fc1.weight"], dense["fc1.weight"])


def test_esl_makes_zeros_by_its_strength_and_the_guide_acts_on_them(
    digits: DataSplits, make_net: MakeNet, tmp_path: Path
) -> None:
    zeros, decided = [], []
    for strength in (2e-3, 2e-2):
        config = CONFIG.model_copy(update={"epochs": 3, "guide": "esl", "esl_strength": strength})
        net, run = make_net(), tmp_path / f"{strength:g}"
        history = train(net, digits, config=config, run_dir=run, **guided("esl"))
        zeros.append(float((net.get_submodule("conv2").weight == 0).double().mean()))
        decided.append({each.layer: each.action for each in history.decisions})
        assert not (net.get_submodule("fc1").weight == 0).any()
    assert zeros[0] < zeros[1]
    assert zeros[1] > 0.5
    assert decided[1] == {"fc2": "never", "fc1": "restore"}
    # Too weak a penalty leaves the layer under its bound: dense again.
    assert decided[0] == {"fc2": "never", "fc1": "restore", "conv2": "restore"}
    assert zeros[0] == 0.0


def test_guided_training_resumes_bit_for_bit(digits: DataSplits, make_net: MakeNet, tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"epochs": 4, "prune_frac": 0.5, "batch_size": 16})

    def stop(name: str, done: float, total: float) -> None:
        if name == "training epoch 2 of 4":
            raise KeyboardInterrupt

    train(make_net(), digits, config=config, run_dir=tmp_path / "whole", **guided("surgery"))
    with pytest.raises(Interrupted):
        train(make_net(), digits, config=config, run_dir=tmp_path / "part", progress=stop, **guided("surgery"))
    train(make_net(4), digits, config=config, run_dir=tmp_path / "part", resume=True, **guided("surgery"))
    ours, theirs = (load_file(RunFolder(tmp_path / name).planned_weights) for name in ("part", "whole"))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def candidate(pattern: str, sparsity: float, time_s: float) -> Candidate:
    return Candidate(
        pattern=pattern,
        sparsity=sparsity,
        kernel="dense" if pattern == "dense" else "csr",
        dtype="float32",
        time_s=Interval(median=time_s, low=time_s, high=time_s),
        loss_increase=0.0,
        extrapolated=False,
    )


def plan(*, target: Target) -> Plan:
    way = "unstructured on csr"
    conv = Problem(op="conv2d", n=4, c_in=32, c_out=32, h_in=8, w_in=8, kernel=(3, 3), padding=(1, 1))
    layers = tuple(
        LayerPlan.model_construct(
            name=name,
            full_problem=conv,
            problem=conv,
            chosen=candidate("unstructured", 0.8, 0.5),
            dense=candidate("dense", 0.0, 1.0),
            considered=(candidate("unstructured", 0.9, 0.3), candidate("filter", 0.5, 0.4)),
            break_even_sparsity={way: lower},
            useful_sparsity={way: 0.95},
            calls=2,
        )
        for name, lower in (("conv2", 0.6), ("fc1", None))
    )
    whole = Interval(median=5.0, low=5.0, high=5.0)
    totals = Totals.model_construct(dense_time_s=whole, planned_time_s=whole)
    return Plan.model_construct(layers=layers, widths=(), target=target, totals=totals, input_shape=(4, 32, 8, 8))


def test_the_projection_is_read_off_the_plan_and_written_back() -> None:
    decided = plan(target=Target(speedup=2.0, throughput_per_s=1.0))
    found = projection_of(decided)
    assert found.target_s == 2.5
    assert found.fixed_s == 1.0
    assert found.dense_s == 5.0
    conv = found.layers["conv2"]
    assert [conv.time_s(each) for each in (0.6, 0.7, 0.8, 0.85, 0.99)] == pytest.approx([1.0, 0.75, 0.5, 0.4, 0.3])
    assert found.layers["fc1"].lower is None
    again = guided_plan(decided, found, {"conv2": 0.85, "fc1": 0.9})
    assert [(each.chosen.pattern, each.chosen.sparsity) for each in again.layers] == [
        ("unstructured", 0.85),
        ("dense", 0.0),
    ]
    assert again.layers[0].problem.sparsity == 0.85
    assert again.totals.planned_time_s.median == pytest.approx(1.0 + 2 * 0.4 + 2 * 1.0)


def test_a_target_beyond_all_zeros_is_refused(digits: DataSplits, make_net: MakeNet, tmp_path: Path) -> None:
    beyond = replace(TWO, target_s=0.6)
    guide = GuideOptions(projection=beyond, method="l1")
    with pytest.raises(InputError, match=r"reaches 2\.39x at most, the target is 2\.83x"):
        train(make_net(), digits, guided_assignment(beyond), config=CONFIG, run_dir=tmp_path, guide=guide)


def test_guided_training_needs_a_speed() -> None:
    with pytest.raises(InputError, match="steers to a speed; plan with --target-speedup"):
        projection_of(plan(target=Target(max_accuracy_drop_points=1.0)))
