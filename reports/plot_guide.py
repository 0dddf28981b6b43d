"""What the guide of sparsity learning decided: each layer between the bounds that make it worth pruning."""

from __future__ import annotations

from markupsafe import Markup
from matplotlib.axes import Axes

from ..trainer.schema import GuideAction, TrainingHistory
from .axes import linear
from .format import percent
from .svg import FAINT_COLOUR, INK_COLOUR, PLANNED_COLOUR, SERIES_COLOURS, WARNING_COLOUR, inline_svg, tooltip

DECISION_MARKS: dict[GuideAction, tuple[str, str]] = {
    "stop": ("s", SERIES_COLOURS[2]),
    "restore": ("X", WARNING_COLOUR),
}
"""Marker and colour; layers that are never pruned have no bounds."""
_MOST_LAYERS = 40
_ROW_IN = 0.16


def plot_guide(history: TrainingHistory) -> Markup:
    """A row a layer: where its zeros pay, and where training ended or the guide took it out."""
    layers = list(history.bounds)[:_MOST_LAYERS]
    decided = {decision.layer: decision for decision in history.decisions}
    reached = history.epochs[-1].sparsity

    def paint(axes: Axes) -> None:
        seen: set[str] = set()
        for row, name in enumerate(layers):
            bounds = history.bounds[name]
            upper = 1.0 if bounds.upper is None else bounds.upper
            axes.barh(row, upper - bounds.lower, left=bounds.lower, height=0.6, color=FAINT_COLOUR, linewidth=0.0)
            decision = decided.get(name)
            if decision is not None and decision.action in DECISION_MARKS:
                kind: str = decision.action
                marker, colour = DECISION_MARKS[decision.action]
                sparsity, text = decision.sparsity, f"{name}, step {decision.step}: {decision.reason}"
            else:
                kind, marker, colour = "open to the end", "o", PLANNED_COLOUR
                sparsity = reached.get(name, 0.0)
                text = f"{name}: {percent(sparsity)} zeros at the end"
            (mark,) = axes.plot(
                sparsity, row, marker, color=colour, markersize=5, label=None if kind in seen else kind, clip_on=False
            )
            seen.add(kind)
            tooltip(mark, text)
        axes.set_yticks(range(len(layers)), layers, fontsize=7, color=INK_COLOUR)
        axes.invert_yaxis()
        axes.set_xlim(0.0, 1.0)
        linear(axes.xaxis, label=percent)
        axes.set_xlabel("zero weights; the bar is where they pay")
        axes.set_title("what the guide decided", loc="left", fontweight="bold")
        axes.legend(loc="upper left")

    actions = ", ".join(f"{name} {decision.action}" for name, decision in decided.items())
    return inline_svg(
        paint,
        key="training-guide",
        label=f"Bounds of each layer's sparsity and what the guide decided: {actions or 'nothing'}.",
        size_in=(4.9, 1.2 + _ROW_IN * len(layers)),
    )
