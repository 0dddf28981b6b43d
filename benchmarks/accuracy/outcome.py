"""Results of experiments: one JSON object a training, and the table of all of them."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from sparseplan.kernels.documents import read_records, write_records

RESULTS = "results.jsonl"
TABLE = "table.md"


class Outcome(BaseModel):
    """One training of one variant."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    experiment: str
    variant: str
    seed: int
    epochs: int
    train_images: int
    validation_error_frac: float
    test_error_frac: float
    """Looked at once, after every decision."""
    multiply_adds: float
    """Of one image, those with a zero weight left out."""
    parameters: int
    weight_bytes: int
    train_s: float
    sizes: dict[str, str] = {}
    """What is left of each layer, in the experiment's own words."""
    predicted_time_s: float | None = None
    """Of the network and of the dense one, as its plan has them; None without a plan."""
    predicted_dense_time_s: float | None = None
    time_s: float | None = None
    """Measured, of the network of the first seed; None where it was not."""
    dense_time_s: float | None = None
    """Measured in the same run."""
    layer_speedups: dict[str, float] = {}
    """Measured, of each layer that lost weights alone against itself dense; none where a plan says what is measured."""


def load_outcomes(folder: Path) -> tuple[Outcome, ...]:
    """What an earlier call left; none where there was none."""
    path = folder / RESULTS
    return read_records(path, Outcome, kind="outcome") if path.exists() else ()


def save_outcomes(folder: Path, outcomes: Sequence[Outcome]) -> str:
    """Write all results and their table; the table."""
    folder.mkdir(parents=True, exist_ok=True)
    write_records(folder / RESULTS, outcomes)
    text = table(outcomes)
    (folder / TABLE).write_text(text)
    return text


def table(outcomes: Sequence[Outcome]) -> str:
    """Means over seeds, with the standard deviation where there are several."""
    by_variant: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        by_variant[outcome.variant].append(outcome)
    lines = [
        "| variant | seeds | test error | validation error | multiply-adds | parameters | predicted | measured "
        "| training | left |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for variant, found in by_variant.items():
        one = found[0]
        cells = (
            variant,
            str(len(found)),
            _spread([100 * each.test_error_frac for each in found], "{:.2f} %"),
            _spread([100 * each.validation_error_frac for each in found], "{:.2f} %"),
            f"{statistics.mean(each.multiply_adds for each in found) / 1e6:.3g} M",
            f"{statistics.mean(each.parameters for each in found) / 1e3:.4g} k",
            _speed(one.predicted_time_s, one.predicted_dense_time_s),
            _speed(one.time_s, one.dense_time_s)
            + "".join(f"; {name} {speedup:.1f}x" for name, speedup in one.layer_speedups.items()),
            f"{statistics.mean(each.train_s for each in found):.0f} s",
            "; ".join(f"{name} {size}" for name, size in one.sizes.items()),
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _speed(time_s: float | None, dense_time_s: float | None) -> str:
    """Time of a batch, and against the dense network."""
    return f"{1e3 * time_s:.3g} ms, {dense_time_s / time_s:.2f}x" if time_s and dense_time_s else ""


def _spread(values: Sequence[float], form: str) -> str:
    mean = form.format(statistics.mean(values))
    return f"{mean} ± {form.format(statistics.stdev(values)).split()[0]}" if len(values) > 1 else mean
