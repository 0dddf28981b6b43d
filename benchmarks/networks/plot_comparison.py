"""Draw the loss of each way of choosing against the predicted time."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

STYLES = {
    "uniform": ("#8a8478", "s"),
    "global magnitude": ("#c58a12", "^"),
    "flop-guided": ("#5c7d1e", "v"),
    "SPDY": ("#a8407f", "D"),
    "ours, no search": ("#5b5b9e", "."),
    "ours": ("#0f6a8b", "o"),
}


def plot_comparison(table: pd.DataFrame, path: Path) -> None:
    """One panel a pattern; the loss on test images that nobody chose by."""
    patterns = list(dict.fromkeys(table["pattern"]))
    figure = Figure(figsize=(4.6 * len(patterns), 3.6), layout="constrained")
    for axes, pattern in zip(figure.subplots(1, len(patterns), squeeze=False)[0], patterns, strict=True):
        for way, (colour, marker) in STYLES.items():
            rows = table[(table["pattern"] == pattern) & (table["way"] == way)].sort_values("time_s")
            axes.plot(1e3 * rows["time_s"], rows["test_loss"], marker=marker, color=colour, label=way, linewidth=1.2)
        axes.set(
            title=pattern, xlabel="predicted time of a batch, ms", ylabel="loss without training, nat", yscale="log"
        )
        axes.legend(frameon=False)
    figure.savefig(path)
