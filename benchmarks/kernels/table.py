"""The results as a pandas table: its file, its text for the terminal, and the geometric means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
import pandas as pd

from sparseplan.kernels.documents import write_atomic
from sparseplan.kernels.errors import SparseplanError

from .contest import Row

SETTING = ["layer_set", "dtype", "batch", "threads", "pattern", "asked_sparsity"]
"""What a geometric mean over layers keeps fixed."""


def to_table(rows: Sequence[Row]) -> pd.DataFrame:
    """One line a row, columns in the order of `Row`."""
    return pd.DataFrame([asdict(row) for row in rows], columns=[field.name for field in fields(Row)])


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Write all rows, whole or not at all."""
    write_atomic(path, lambda temporary: to_table(rows).to_csv(temporary, index=False))


def read_csv(path: Path) -> list[Row]:
    """The rows of a file of `write_csv`.

    Raises
    ------
    SparseplanError
        If the file cannot be read or has other columns.
    """
    names = [field.name for field in fields(Row)]
    # An empty text is not a missing number.
    texts = {field.name: str for field in fields(Row) if field.type == "str"}
    try:
        table = pd.read_csv(
            path, dtype=texts, keep_default_na=False, na_values={name: [""] for name in names if name not in texts}
        )
    except (OSError, ValueError) as error:
        raise SparseplanError(f"cannot read {path}: {error}; give --out another folder") from None
    if list(table.columns) != names:
        raise SparseplanError(f"{path} has other columns than this program writes; give --out another folder")
    return [Row(**record) for record in table.to_dict("records")]


def case_text(rows: Sequence[Row]) -> str:
    """The kernels of one case, fastest first."""
    table = to_table(rows).sort_values("time_s")
    if table["kernel"].eq("").all():
        return f"  {rows[0].reason}\n"
    shown = pd.DataFrame(
        {
            "kernel": table["kernel"],
            "time ms": [_time(*three) for three in table[["time_s", "time_low_s", "time_high_s"]].to_numpy()],
            "useful Gflop/s": _number(table["useful_flop_per_s"] / 1e9, 1),
            "dense-equiv": _number(table["dense_equiv_flop_per_s"] / 1e9, 1),
            "roofline %": _number(table["roofline_frac"] * 100, 0),
            "speedup": _number(table["speedup"], 2),
            "pack ms/M": _number(table["pack_s_per_million_weights"] * 1e3, 1),
            "": table["reason"],
        }
    )
    return _text(shown)


def means(rows: Sequence[Row]) -> pd.DataFrame:
    """Geometric means over the layers of a set, one line a setting and kernel; `layers` says how many there are."""
    table = to_table(rows)
    table = table[table["time_s"].notna()]
    columns = ["time_s", "useful_flop_per_s", "dense_equiv_flop_per_s", "roofline_frac", "speedup"]
    grouped = table.groupby([*SETTING, "kernel"], sort=False, dropna=False)
    averaged = grouped[columns].agg(geometric_mean)
    averaged["slowest"] = grouped["speedup"].min()
    averaged["pack_s_per_million_weights"] = grouped["pack_s_per_million_weights"].agg(geometric_mean)
    averaged["layers"] = grouped.size()
    return averaged.reset_index()


def write_means(path: Path, rows: Sequence[Row]) -> None:
    """Write the geometric means, to three digits: a table small enough to keep, of times that scatter by more."""
    write_atomic(path, lambda temporary: means(rows).to_csv(temporary, index=False, float_format="%.3g"))


def geometric_mean(values: pd.Series) -> float:
    """NaN where there is a NaN among them."""
    return float(np.exp(np.log(values.to_numpy(dtype=float)).mean()))


def means_text(rows: Sequence[Row]) -> str:
    """The geometric means, one block a setting."""
    blocks = []
    for setting, part in means(rows).groupby(SETTING, sort=False, dropna=False):
        name, dtype, batch, threads, pattern, sparsity = setting
        own = "its own weights" if np.isnan(sparsity) else f"{sparsity:.0%} zeros"
        part = part.sort_values("speedup", ascending=False)
        shown = pd.DataFrame(
            {
                "kernel": part["kernel"],
                "layers": part["layers"].astype(str),
                "time ms": _number(part["time_s"] * 1e3, 3),
                "useful Gflop/s": _number(part["useful_flop_per_s"] / 1e9, 1),
                "dense-equiv": _number(part["dense_equiv_flop_per_s"] / 1e9, 1),
                "roofline %": _number(part["roofline_frac"] * 100, 0),
                "speedup": _number(part["speedup"], 2),
                "least": _number(part["slowest"], 2),
                "pack ms/M": _number(part["pack_s_per_million_weights"] * 1e3, 1),
            }
        )
        title = f"{name}, {dtype}, batch {batch}, {threads} thread{'s' * (threads > 1)}, {pattern}, {own}"
        blocks.append(f"{title}\n{_text(shown)}")
    return "\n".join(blocks)


def _time(median: float, low: float, high: float) -> str:
    return "-" if np.isnan(median) else f"{median * 1e3:.4g} ({low * 1e3:.4g}-{high * 1e3:.4g})"


def _number(values: pd.Series, digits: int) -> list[str]:
    return ["-" if np.isnan(value) else f"{value:.{digits}f}" for value in values]


def _text(shown: pd.DataFrame) -> str:
    """Names to the left, numbers to the right."""
    widths = {name: max(len(name), *(len(str(value)) for value in shown[name])) for name in shown}
    lines = [list(shown), *shown.astype(str).to_numpy().tolist()]
    return "".join(
        "  "
        + "  ".join(
            text.ljust(width) if name in ("kernel", "") else text.rjust(width)
            for (name, width), text in zip(widths.items(), line, strict=True)
        ).rstrip()
        + "\n"
        for line in lines
    )
