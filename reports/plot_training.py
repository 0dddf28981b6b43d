"""Training curves: loss, validation accuracy and sparsity by epoch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from statistics import mean

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ..trainer.schema import EpochRecord, TrainingHistory
from .axes import linear
from .format import percent
from .plot_guide import DECISION_MARKS, plot_guide
from .svg import DENSE_COLOUR, FAINT_COLOUR, INK_COLOUR, PLANNED_COLOUR, SERIES_COLOURS, inline_svg, tooltip

_SIZE_IN = (3.9, 2.7)
_PHASE_NAMES = {"dense": "dense", "prune": "pruning", "finetune": "fine-tuning"}


def plot_training(history: TrainingHistory) -> tuple[Markup, ...]:
    """Three plots over the epochs, and what the guide decided where there was one; none where nothing was trained."""
    if not history.epochs:
        return ()
    return (
        _plot(history, _paint_loss, key="loss", title="loss"),
        _plot(history, _paint_accuracy, key="accuracy", title="validation accuracy"),
        _plot(history, _paint_sparsity, key="sparsity", title="zero weights, by planned layer"),
        *((plot_guide(history),) if history.bounds else ()),
    )


def _plot(
    history: TrainingHistory, paint_curves: Callable[[Axes, TrainingHistory], None], *, key: str, title: str
) -> Markup:
    def paint(axes: Axes) -> None:
        paint_curves(axes, history)
        _paint_phases(axes, history.epochs)
        axes.set_title(title, loc="left", fontweight="bold", pad=16.0)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.set_xlim(_epochs(history)[0] - 0.5, _epochs(history)[-1] + 0.5)

    return inline_svg(paint, key=f"training-{key}", label=f"Line plot of {title} by epoch.", size_in=_SIZE_IN)


def _paint_loss(axes: Axes, history: TrainingHistory) -> None:
    epochs = _epochs(history)
    axes.plot(
        epochs,
        [epoch.train_loss for epoch in history.epochs],
        "o-",
        markersize=3,
        color=PLANNED_COLOUR,
        label="training",
    )
    axes.plot(
        epochs,
        [epoch.validation_loss for epoch in history.epochs],
        "s--",
        markersize=3,
        color=SERIES_COLOURS[1],
        label="validation",
    )
    axes.set_ylim(bottom=0.0)
    axes.set_ylabel("cross-entropy (nat)")
    axes.legend()


def _paint_accuracy(axes: Axes, history: TrainingHistory) -> None:
    accuracies = [epoch.validation_accuracy_frac for epoch in history.epochs]
    axes.plot(_epochs(history), accuracies, "o-", markersize=3, color=PLANNED_COLOUR, label="while pruning")
    if history.dense_validation_accuracy_frac is not None:
        axes.axhline(history.dense_validation_accuracy_frac, color=DENSE_COLOUR, linestyle="--", label="dense, before")
    linear(axes.yaxis, label=percent)
    axes.legend(loc="lower right")


def _paint_sparsity(axes: Axes, history: TrainingHistory) -> None:
    names = dict.fromkeys(name for epoch in history.epochs for name in epoch.sparsity)
    for name in names:
        known = [epoch for epoch in history.epochs if name in epoch.sparsity]
        axes.plot(
            [epoch.epoch for epoch in known],
            [epoch.sparsity[name] for epoch in known],
            color=PLANNED_COLOUR,
            alpha=0.35,
            linewidth=1.0,
        )
    with_layers = [epoch for epoch in history.epochs if epoch.sparsity]
    axes.plot(
        [epoch.epoch for epoch in with_layers],
        [mean(epoch.sparsity.values()) for epoch in with_layers],
        "o-",
        markersize=3,
        color=INK_COLOUR,
        label="mean of the layers",
    )
    _mark_decisions(axes, history)
    axes.set_ylim(0.0, 1.0)
    linear(axes.yaxis, label=percent)
    axes.legend(loc="lower right")


def _mark_decisions(axes: Axes, history: TrainingHistory) -> None:
    """Where the guide stopped or restored a layer, on the epoch in which it did."""
    if history.steps_per_epoch is None:
        return
    for action, (marker, colour) in DECISION_MARKS.items():
        found = [decision for decision in history.decisions if decision.action == action]
        for number, decision in enumerate(found):
            (mark,) = axes.plot(
                decision.step / history.steps_per_epoch + 0.5,
                decision.sparsity,
                marker,
                color=colour,
                markersize=5,
                label=f"{action} ({len(found)})" if number == 0 else None,
                zorder=4,
            )
            tooltip(mark, f"{decision.layer}, step {decision.step}: {action}, {decision.reason}")


def _paint_phases(axes: Axes, epochs: Sequence[EpochRecord]) -> None:
    for index, (phase, members) in enumerate(groupby(epochs, key=lambda epoch: epoch.phase)):
        numbers = [epoch.epoch for epoch in members]
        if index % 2:
            axes.axvspan(numbers[0] - 0.5, numbers[-1] + 0.5, color=FAINT_COLOUR, alpha=0.35, linewidth=0.0, zorder=0)
        axes.annotate(
            _PHASE_NAMES[phase],
            (numbers[0] - 0.5, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(2, 3),
            textcoords="offset points",
            fontsize=7.5,
            color=INK_COLOUR,
        )


def _epochs(history: TrainingHistory) -> list[int]:
    return [epoch.epoch for epoch in history.epochs]
