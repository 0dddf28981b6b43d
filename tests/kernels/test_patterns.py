"""The vocabulary of patterns."""

import pytest

from sparseplan.kernels.errors import InputError
from sparseplan.kernels.pattern import BlockPart, NmPart, SasPart, parse_pattern

BLOCKS = {
    "unstructured": (1, 1, 1, 1),
    "block:16x1": (16, 1, 1, 1),
    "block:16x32": (16, 32, 1, 1),
    "shape": (None, 1, 1, 1),
    "filter": (1, None, None, None),
    "channel": (None, 1, None, None),
    "filter2d": (1, 1, None, None),
    "depth": (None, None, None, None),
}


@pytest.mark.parametrize(("text", "block"), BLOCKS.items())
def test_block_shapes_of_the_design(text: str, block: tuple[int | None, ...]) -> None:
    (part,) = parse_pattern(text).parts
    assert isinstance(part, BlockPart)
    assert part.block == block
    assert parse_pattern(text).fixed_sparsity is None


def test_dense_has_no_parts() -> None:
    assert parse_pattern("dense").is_dense
    assert parse_pattern("dense").fixed_sparsity == 0.0


def test_nm_dictates_its_sparsity() -> None:
    pattern = parse_pattern("1:4")
    assert pattern.parts == (NmPart(name="1:4", n=1, m=4),)
    assert pattern.kinds == ("n:m",)
    assert pattern.fixed_sparsity == 0.75


def test_outputs_may_share_their_columns() -> None:
    pattern = parse_pattern("64:2:8")
    (part,) = pattern.parts
    assert part == NmPart(name="64:2:8", n=2, m=8, v=64)
    assert part.columns == 4
    assert pattern.kinds == ("v:n:m",)
    assert pattern.fixed_sparsity == 0.75
    for wrong in ("1:2:8", "64:2:4", "64:8:2"):
        with pytest.raises(InputError, match="unknown sparsity pattern"):
            parse_pattern(wrong)


def test_sas_leaves_weights_free() -> None:
    pattern = parse_pattern("sas:1:2")
    assert pattern.parts == (SasPart(name="sas:1:2", n=1, m=2),)
    assert pattern.kinds == ("sas",)
    assert pattern.fixed_sparsity == pattern.least_sparsity == 0.5
    assert pattern.slots == 2
    assert parse_pattern("filter+sas:1:4").slots == 4
    assert parse_pattern("filter+2:4").slots == 1


def test_sum_keeps_order_and_is_free_where_one_part_is() -> None:
    pattern = parse_pattern("channel+block:16x32")
    assert pattern.kinds == ("channel", "block")
    mixed = parse_pattern("filter+2:4")
    assert mixed.fixed_sparsity is None
    assert mixed.least_sparsity == 0.5


@pytest.mark.parametrize(
    "text",
    [
        "",
        "+",
        "filter+",
        "dense+filter",
        "Filter",
        " filter",
        "4:2",
        "2:2",
        "0:4",
        "block:0x4",
        "block:16",
        "block:-1x4",
        "sas:2:1",
        "sas:",
        "rows",
    ],
)
def test_not_a_pattern(text: str) -> None:
    with pytest.raises(InputError, match=r"unknown sparsity pattern .* allowed: dense, unstructured"):
        parse_pattern(text)


@pytest.mark.parametrize("text", ["filter+filter", "2:4+1:4", "2:4+2:4"])
def test_a_part_that_could_zero_nothing_more_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="repeats a part"):
        parse_pattern(text)
