"""Figures can stand inside a page: no foreign markup, no colliding ids, no formulas made of names."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from matplotlib.axes import Axes
from report_samples import sample_history, sample_inputs, sample_measurements, sample_plan, sample_profile

from sparseplan.kernels.problem import Problem
from sparseplan.reports.axes import logarithmic, name_points, settle_layout
from sparseplan.reports.format import seconds
from sparseplan.reports.plot_prediction import (
    PredictedLayer,
    dense_predictions,
    planned_predictions,
    plot_prediction,
    prediction_quality,
)
from sparseplan.reports.plot_roofline import intensity_of, plot_roofline, roof_layers
from sparseplan.reports.plot_training import plot_training
from sparseplan.reports.svg import inline_svg, tooltip
from sparseplan.trainer.schema import GuideBounds, GuideDecision

PLAN = sample_plan()
MEASURED = sample_measurements(PLAN)


def svg_of(name: str) -> ElementTree.Element:
    def paint(axes: Axes) -> None:
        axes.plot([1.0, 2.0], [1.0, 3.0], "o-", label=name)
        axes.set_title(name)
        tooltip(axes.lines[0], name)

    return ElementTree.fromstring(inline_svg(paint, key="one", label=name, size_in=(3.0, 2.0)))


@pytest.mark.parametrize(
    "name", ["$\\frac{$", "$x_1$", "<script>alert(1)</script>", '"a" & b', "слой.第一", "a_b^c", 'id="x"']
)
def test_names_come_through_as_they_are(name: str) -> None:
    root = svg_of(name)
    assert name in [text.text for text in root.iter("text")]
    assert name in [title.text for title in root.iter("title")]
    assert root.attrib["aria-label"] == name
    assert root.attrib["role"] == "img"


def test_characters_that_xml_forbids_are_replaced() -> None:
    assert "a\ufffdb" in [text.text for text in svg_of("a\x0bb").iter("text")]


def test_only_what_is_referred_to_has_an_id_and_it_carries_the_key() -> None:
    root = svg_of("layer")
    identities = {element.attrib["id"] for element in root.iter() if "id" in element.attrib}
    text = ElementTree.tostring(root, encoding="unicode")
    assert identities
    assert identities == set(re.findall(r'(?:href="#|url\(#)([^")]+)', text))
    assert all(identity.startswith("one-") for identity in identities)


def test_nothing_of_a_file_of_its_own_is_left() -> None:
    tags = {element.tag for element in svg_of("layer").iter()}
    assert tags.isdisjoint({"metadata", "style"})
    assert not any("}" in tag for tag in tags)


def test_logarithmic_ticks_carry_units_without_idle_zeros() -> None:
    def paint(axes: Axes) -> None:
        logarithmic(axes, "y", low=0.5e-3, high=0.02, label=seconds)

    texts = [
        text.text
        for text in ElementTree.fromstring(inline_svg(paint, key="k", label="l", size_in=(3.0, 3.0))).iter("text")
    ]
    assert [text for text in texts if text and "s" in text] == ["500 µs", "1 ms", "2 ms", "5 ms", "10 ms", "20 ms"]


def test_a_name_without_room_is_left_out() -> None:
    def paint(axes: Axes) -> None:
        axes.set(xlim=(0, 1), ylim=(0, 1))
        settle_layout(axes)
        crowd = [(f"point{i}", 0.5 + 1e-3 * i, 0.5) for i in range(20)]
        name_points(axes, crowd, points=[(x, y) for _, x, y in crowd])

    root = ElementTree.fromstring(inline_svg(paint, key="k", label="l", size_in=(3.0, 2.0)))
    names = [text.text for text in root.iter("text") if (text.text or "").startswith("point")]
    assert "point0" in names
    assert 1 <= len(names) < 20


def test_intensity_counts_useful_work_over_compulsory_bytes() -> None:
    problem = Problem(op="linear", n=4, c_in=100, c_out=10, pattern="unstructured", sparsity=0.75)
    # 2 * 4 * 1000 * 0.25 flop over 4 bytes of each of 400 inputs, 40 outputs, 250 weights
    assert intensity_of(problem) == pytest.approx(2000 / (4 * (400 + 40 + 250)))


def test_the_roofline_holds_every_measured_layer_dense_and_planned() -> None:
    layers = roof_layers(PLAN, MEASURED)
    assert [layer.name for layer in layers] == [layer.name for layer in MEASURED.layers]
    time = MEASURED.layers[0]
    problem = next(layer.problem for layer in PLAN.layers if layer.name == time.name)
    assert layers[0].planned.flop_per_s == pytest.approx(problem.flop_useful / time.time_s.median)
    assert layers[0].dense.flop_per_s == pytest.approx(problem.flop_dense_equiv / time.dense_time_s.median)
    plot = plot_roofline(PLAN, MEASURED, sample_profile())
    assert plot is not None
    titles = [title.text or "" for title in ElementTree.fromstring(plot).iter("title")]
    assert sum(title.startswith("layer1.0.conv1, ") for title in titles) == 2
    assert sum("reverted" in title for title in titles) == 1
    for roof in ("L1 1.35 TB/s", "L2 410 GB/s", "L3 112 GB/s", "memory 31.0 GB/s", "float32 multiply-add 492 Gflop/s"):
        assert roof in plot
    # no layer runs in bfloat16, so its roof would only stretch the plot
    assert "bfloat16" not in plot


def test_no_roofline_without_ceilings_at_the_thread_count() -> None:
    assert plot_roofline(PLAN, MEASURED, sample_profile().model_copy(update={"threads": 1})) is None
    assert plot_roofline(PLAN, MEASURED.model_copy(update={"layers": ()}), sample_profile()) is None


def test_prediction_quality() -> None:
    planned = planned_predictions(MEASURED)
    errors = sorted(abs(time.predicted_time_s.median / time.time_s.median - 1) for time in MEASURED.layers)
    quality = prediction_quality("planned", planned)
    assert quality.median_error == f"{100 * errors[3]:.1f} %"
    assert quality.within_band == f"{100 * sum(error <= 0.1 for error in errors) / 7:.1f} %"
    assert quality.count == "7"
    assert quality.covered == "85.7 %"
    assert len(dense_predictions(PLAN, MEASURED)) == 7


def test_a_prediction_whose_interval_reaches_zero_or_misses_its_median_is_still_drawn() -> None:
    (first, *_) = planned_predictions(MEASURED)
    odd = [
        PredictedLayer(
            name="odd",
            predicted_s=first.predicted_s.model_copy(update={"low": low}),
            measured_s=first.measured_s,
        )
        for low in (0.0, first.predicted_s.median * 1.05)
    ]
    assert plot_prediction(odd, ()).count("<title>odd") == 2


def test_training_has_three_plots_and_none_without_epochs() -> None:
    history = sample_history(PLAN)
    plots = plot_training(history)
    assert [len(ElementTree.fromstring(plot).findall(".//text")) > 5 for plot in plots] == [True, True, True]
    assert all("pruning" in plot and "fine-tuning" in plot for plot in plots)
    assert plot_training(history.model_copy(update={"epochs": ()})) == ()


def test_what_the_guide_decided_lies_between_its_bounds() -> None:
    history = sample_history(PLAN)
    names = list(history.epochs[-1].sparsity)[:3]
    decisions = [
        GuideDecision(step=step, layer=name, action=action, sparsity=0.7, projected_speedup=1.5, reason=f"why {action}")
        for step, name, action in ((150, names[0], "stop"), (310, names[1], "restore"))
    ]
    guided = history.model_copy(
        update={
            "decisions": tuple(decisions),
            "bounds": {name: GuideBounds(lower=0.4, upper=0.9 if name == names[0] else None) for name in names},
            "steps_per_epoch": 100,
        }
    )
    plots = plot_training(guided)
    assert len(plots) == 4
    assert all(text in plots[3] for text in (*names, "stop", "restore", "open to the end", "where they pay"))
    # Both plots tell at a mark what was decided, when and why; in the other one it lies on its epoch.
    for plot in (plots[2], plots[3]):
        assert f"<title>{names[1]}, step 310" in plot
        assert "why restore" in plot
    assert "stop (1)" in plots[2]
    without_steps = plot_training(guided.model_copy(update={"steps_per_epoch": None}))
    assert "why restore" not in without_steps[2]


def test_a_single_epoch_can_be_drawn() -> None:
    inputs = sample_inputs()
    assert inputs.history is not None
    assert len(plot_training(inputs.history.model_copy(update={"epochs": inputs.history.epochs[:1]}))) == 3
