"""Problems: validation, sizes, counts of work."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from sparseplan.kernels.documents import read_records
from sparseplan.kernels.errors import InputError
from sparseplan.kernels.problem import Problem

CONV: dict[str, Any] = {"op": "conv2d", "n": 2, "c_in": 4, "c_out": 6, "h_in": 8, "w_in": 8, "kernel": (3, 3)}
PAIR = st.tuples(st.integers(1, 4), st.integers(1, 4))


@settings(deadline=None)
@given(size=st.tuples(st.integers(1, 12), st.integers(1, 12)), kernel=PAIR, stride=PAIR, padding=PAIR, dilation=PAIR)
def test_output_size_is_that_of_torch(
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
) -> None:
    spans = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    assume(all(axis + 2 * pad >= span for axis, pad, span in zip(size, padding, spans, strict=True)))
    problem = Problem(
        op="conv2d",
        n=1,
        c_in=1,
        c_out=1,
        h_in=size[0],
        w_in=size[1],
        kernel=kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
    )
    y = torch.nn.functional.conv2d(torch.ones(1, 1, *size), torch.ones(1, 1, *kernel), None, stride, padding, dilation)
    assert problem.output_shape == tuple(y.shape)


def test_counts_of_alexnet_conv5() -> None:
    """The GSL paper's own figures: 149.5 Mflop an image, 433 kB of activations, 1.77 MB of weights."""
    problem = Problem(
        op="conv2d",
        n=1,
        c_in=384,
        c_out=256,
        h_in=13,
        w_in=13,
        kernel=(3, 3),
        padding=(1, 1),
        groups=2,
        pattern="unstructured",
        sparsity=0.91,
    )
    assert problem.flop_dense_equiv == pytest.approx(149.5e6, rel=1e-3)
    assert problem.flop_useful == pytest.approx(0.09 * 149.5e6, rel=1e-3)
    assert problem.input_bytes + problem.output_bytes == pytest.approx(433e3, rel=2e-3)
    assert problem.weight_bytes == pytest.approx(1.77e6, rel=2e-3)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"op": "conv3d"}, "op"),
        ({"dtype": "float64"}, "dtype"),
        ({"n": 0}, "n"),
        ({"threads": 0}, "threads"),
        ({"kernel": (0, 3)}, "kernel"),
        ({"kernel": (3,)}, "kernel"),
        ({"stride": (0, 1)}, "stride"),
        ({"padding": (-1, 0)}, "padding"),
        ({"groups": 3}, "groups"),
        ({"groups": 4}, "groups"),
        ({"kernel": (9, 9)}, "h_in, w_in"),
        ({"sparsity": 0.5}, "sparsity"),
        ({"pattern": "filter", "sparsity": 1.5}, "sparsity"),
        ({"pattern": "filter", "sparsity": float("nan")}, "sparsity"),
        ({"pattern": "2:4", "sparsity": 0.6}, "sparsity"),
        ({"pattern": "filter+2:4", "sparsity": 0.4}, "sparsity"),
        ({"op": "linear", "kernel": (1, 1)}, "op"),
    ],
)
def test_refused(change: dict[str, Any], field: str) -> None:
    with pytest.raises(InputError, match=f"^problem field {field}: got .* allowed is "):
        Problem(**(CONV | change))


def test_linear_shapes() -> None:
    problem = Problem(op="linear", n=8, c_in=5, c_out=3)
    assert problem.input_shape == (8, 5)
    assert problem.output_shape == (8, 3)
    assert problem.weight_shape == (3, 5, 1, 1)


def test_with_sparsity_respects_what_the_pattern_dictates() -> None:
    problem = Problem(**CONV)
    assert problem.with_sparsity("2:4", 0.9).sparsity == 0.5
    assert problem.with_sparsity("filter+2:4", 0.2).sparsity == 0.5
    assert problem.with_sparsity("filter", 0.2).sparsity == 0.2
    assert problem.with_sparsity("filter", 0.2).as_dense() == problem


def test_json_round_trip() -> None:
    problem = Problem(**(CONV | {"pattern": "filter+shape", "sparsity": 0.7}))
    adapter = TypeAdapter(Problem)
    assert adapter.validate_json(adapter.dump_json(problem)) == problem
    assert asdict(problem)["kernel"] == (3, 3)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"op":"linear","n":1,"c_in":2}', "line 2: not a problem: c_out: Field required"),
        ('{"op":"linear","n":1,"c_in":2,"c_out":2,"colour":"red"}', "line 2: not a problem: colour"),
        ('{"op":"linear","n":1,"c_in":2,"c_out":2,"pattern":"rows"}', "line 2: unknown sparsity pattern 'rows'"),
        ('{"op":"linear","n":1,"c_in"', "line 2: not a problem: the whole object: Invalid JSON"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "problems.jsonl"
    path.write_text('{"op":"linear","n":1,"c_in":2,"c_out":2}\n' + line + "\n")
    with pytest.raises(InputError, match=message):
        read_records(path, Problem, kind="problem")
