"""Speedup against sparsity: a figure for each operation, dtype, batch and thread count, a panel a pattern, a line a
kernel.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, PercentFormatter

from sparseplan.kernels.documents import write_atomic

from .contest import Row
from .table import geometric_mean, to_table

COLUMNS = 4
PANEL_IN = (3.1, 2.9)
LEGEND_COLUMNS = 3
LEGEND_LINE_IN = 0.19
COLOURS = ("#0f6a8b", "#a8407f", "#5c7d1e", "#c58a12", "#5b5b9e", "#c2571a", "#2f8f7a", "#7a4a2b")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES = {"baseline": ":", "avx2": "--", "scipy": "--"}
"""By instruction set or library, what follows the method in a kernel's name; all others are drawn through."""
DENSE_COLOUR = "#b3aca0"
_STYLE = {
    "font.size": 8.5,
    "axes.titlesize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e2d8",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 7,
    "svg.fonttype": "none",
    "svg.hashsalt": "sparseplan",
}


def write_plots(folder: Path, rows: Sequence[Row]) -> tuple[Path, ...]:
    """Draw what there is; returns the files, an SVG and a PNG for each figure."""
    table = to_table(rows)
    table = table[table["speedup"].notna()]
    files: list[Path] = []
    for (op, dtype, batch, threads), part in table.groupby(["op", "dtype", "batch", "threads"], sort=False):
        title = f"{op}, {dtype}, batch {batch}, {threads} thread{'s' * (threads > 1)}"
        with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="constrained_layout not applied")
            figure = _figure(part, title)
            for ending in ("svg", "png"):
                path = folder / f"speedup-{op}-{dtype}-batch{batch}-threads{threads}.{ending}"
                write_atomic(path, partial(figure.savefig, format=ending, dpi=130))
                files.append(path)
    return tuple(files)


def _figure(part: pd.DataFrame, title: str) -> Figure:
    patterns = list(dict.fromkeys(part["pattern"]))
    columns = min(COLUMNS, len(patterns))
    lines = -(-len(patterns) // columns)
    styles = _styles(sorted(kernel for kernel in set(part["kernel"]) if "_dense_" not in kernel))
    legend_in = LEGEND_LINE_IN * (2 + len(styles) // LEGEND_COLUMNS)
    width_in = max(PANEL_IN[0] * columns, 3.3 * LEGEND_COLUMNS)
    figure = Figure(figsize=(width_in, PANEL_IN[1] * lines + legend_in + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(lines, columns, squeeze=False, sharey=True)
    for axes in grid.flat[len(patterns) :]:
        axes.set_axis_off()
    shown = part["asked_sparsity"].fillna(part["sparsity"])
    left = max(0.0, float(shown[part["kernel"].isin(styles)].min()) - 0.1) if styles else 0.0
    for axes, pattern in zip(grid.flat, patterns, strict=False):
        _panel(axes, part[part["pattern"] == pattern], styles, left)
        axes.set_title(pattern, loc="left", fontweight="bold")
        axes.set_xlabel("zero weights")
    figure.suptitle(
        f"Speedup over the best dense torch kernel ({title}): geometric mean over the layers\n"
        "(hollow: layers pruned already, with weights of their own)",
        fontsize=10,
    )
    handles = [Line2D([], [], label=name, **style) for name, style in styles.items()]
    handles.append(Line2D([], [], label="dense kernels of torch", color=DENSE_COLOUR, marker="."))
    figure.legend(handles=handles, loc="outside lower center", ncols=LEGEND_COLUMNS)
    return figure


def _styles(kernels: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Colour and marker by what a kernel does, the line by its instruction set; the same in all panels."""
    methods = list(dict.fromkeys(kernel.partition("__")[0] for kernel in kernels))
    styles = {}
    for kernel in kernels:
        method, _, home = kernel.partition("__")
        number = methods.index(method)
        styles[kernel] = {
            "color": COLOURS[number % len(COLOURS)],
            "marker": MARKERS[number % len(MARKERS)],
            "linestyle": LINES.get(home, "-"),
            "markersize": 4,
            "linewidth": 1.4,
        }
    return styles


def _panel(axes: Axes, part: pd.DataFrame, styles: dict[str, dict[str, Any]], left: float) -> None:
    """A kernel's point is the mean over the layers that it ran at that sparsity; the axis begins at `left`."""
    axes.axhline(1.0, color="#3b3832", linewidth=0.9)
    own = part["asked_sparsity"].isna()
    curves = part[~own].groupby(["kernel", "asked_sparsity"])["speedup"].agg(geometric_mean)
    for kernel in curves.index.unique(level=0):
        curve = curves[kernel]
        if kernel in styles:
            axes.plot(curve.index, curve, **styles[kernel])
        else:
            axes.plot(curve.index, curve, color=DENSE_COLOUR, linewidth=1, marker=".", zorder=1)
    for kernel, alone in part[own].groupby("kernel"):
        if kernel in styles:
            point = (alone["sparsity"].mean(), geometric_mean(alone["speedup"]))
            axes.plot(*point, **styles[kernel] | {"linestyle": "none", "markerfacecolor": "none", "markersize": 7})
    axes.set_yscale("log", base=2)
    axes.yaxis.set_major_locator(LogLocator(base=2))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    # Half of an axis is empty where nothing below half zeros was asked for.
    axes.set_xlim(left, 1.02)
