"""Holding a share of each class out."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sparseplan.data.holdout import stratified_holdout


@given(st.lists(st.integers(0, 5), max_size=60), st.floats(0.01, 0.99))
def test_parts_are_disjoint_complete_and_stratified(labels: list[int], frac: float) -> None:
    array = np.array(labels, dtype=np.int64)
    kept, held = stratified_holdout(array, frac)

    assert np.array_equal(np.sort(np.concatenate([kept, held])), np.arange(len(labels)))
    for label in set(labels):
        count, out = labels.count(label), int((array[held] == label).sum())
        assert out < count
        assert out >= (1 if count > 1 else 0)
        assert abs(out - frac * count) <= 1


def test_the_same_at_every_call_and_another_for_another_seed() -> None:
    labels = np.repeat(np.arange(4), 50)
    first, again, other = (stratified_holdout(labels, 0.1, seed=seed)[1] for seed in (0, 0, 1))

    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_one_class_does_not_move_another() -> None:
    few = stratified_holdout(np.repeat([0, 1], [40, 10]), 0.25)[1]
    many = stratified_holdout(np.repeat([0, 1], [40, 30]), 0.25)[1]

    assert np.array_equal(few[few < 40], many[many < 40])
