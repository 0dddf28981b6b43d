"""Plots of an experiment: error by epoch, and test error against time."""

from __future__ import annotations

import re
import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sparseplan.trainer.store import RunFolder

from .outcome import Outcome

CURVES = "curves.svg"
TRADE_OFF = "trade-off.svg"
_STEP = re.compile(r"^(?P<family>.+) (?P<speedup>[\d.]+)x$")
"""Variants that differ in the target alone: ``mix 1.5x``, ``mix 2x``."""


def plot_results(folder: Path, outcomes: Sequence[Outcome], *, folder_of: Callable[[str, int], RunFolder]) -> None:
    """Write the plots that there is something to show for."""
    trained = [each for each in outcomes if each.epochs > 0 and folder_of(each.variant, each.seed).history.exists()]
    if trained:
        _draw(folder / CURVES, lambda axes: _paint_curves(axes, trained, folder_of))
    timed = [each for each in outcomes if times_of(each) is not None]
    if timed:
        _draw(folder / TRADE_OFF, lambda axes: _paint_trade_off(axes, timed))


def times_of(outcome: Outcome) -> tuple[float, float, str] | None:
    """Time of the network and of the dense one, seconds, and where they come from."""
    if outcome.time_s is not None and outcome.dense_time_s is not None:
        return outcome.time_s, outcome.dense_time_s, "measured"
    if outcome.predicted_time_s is not None and outcome.predicted_dense_time_s is not None:
        return outcome.predicted_time_s, outcome.predicted_dense_time_s, "predicted"
    return None


def _draw(path: Path, paint: Callable[[Axes], None]) -> None:
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    paint(figure.subplots())
    figure.savefig(path, metadata={"Date": None})


def _paint_curves(axes: Axes, outcomes: Sequence[Outcome], folder_of: Callable[[str, int], RunFolder]) -> None:
    for number, variant in enumerate(dict.fromkeys(each.variant for each in outcomes)):
        for each in (one for one in outcomes if one.variant == variant):
            records = folder_of(variant, each.seed).load_history().epochs
            axes.plot(
                [record.epoch for record in records],
                [100.0 * (1.0 - record.validation_accuracy_frac) for record in records],
                marker=".",
                color=f"C{number % 10}",
                linestyle=("-", "--", ":", "-.")[number // 10 % 4],
                linewidth=1.0,
                label=variant if each.seed == min(one.seed for one in outcomes if one.variant == variant) else None,
            )
    axes.set(xlabel="epoch", ylabel="validation error, %", yscale="log")
    axes.legend(frameon=False, fontsize=7)


def _paint_trade_off(axes: Axes, outcomes: Sequence[Outcome]) -> None:
    """One line a family of variants, a point a target, its bar the standard deviation over seeds."""
    families: dict[str, dict[str, list[Outcome]]] = defaultdict(lambda: defaultdict(list))
    for each in outcomes:
        step = _STEP.match(each.variant)
        families[step["family"] if step else each.variant][each.variant].append(each)
    kinds: set[str] = set()
    for family, variants in families.items():
        points = []
        for found in variants.values():
            times = times_of(found[0])
            assert times is not None
            errors = [100.0 * each.test_error_frac for each in found]
            kinds.add(times[2])
            points.append((1e3 * times[0], statistics.mean(errors), _deviation(errors)))
        times_ms, means, bars = zip(*sorted(points), strict=True)
        axes.errorbar(times_ms, means, yerr=bars, marker="o", markersize=4, capsize=2, linewidth=1.2, label=family)
    axes.set(xlabel=f"{' or '.join(sorted(kinds))} time of a batch, ms", ylabel="test error, %")
    axes.legend(frameon=False, fontsize=7)


def _deviation(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0
