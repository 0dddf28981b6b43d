"""Weights of problems: random under a mask, or from a file that is checked."""

import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import scipy.sparse
import torch

from sparseplan.kernels.errors import InputError, UnsupportedError
from sparseplan.kernels.problem import Problem
from sparseplan.kernels.weights import actual_sparsity, make_weight, with_actual_sparsity

CONV = Problem(op="conv2d", n=1, c_in=8, c_out=6, h_in=5, w_in=5, kernel=(3, 3), groups=2)


def _named(name: str, pattern: str = "unstructured") -> Problem:
    return replace(CONV.with_sparsity(pattern, 0.0), weights=name)


def _make(problem: Problem, folder: Path | None = None, seed: int = 0) -> torch.Tensor:
    return make_weight(problem, torch.Generator().manual_seed(seed), folder=folder)


@pytest.mark.parametrize("pattern", ["dense", "unstructured", "filter", "2:4", "filter+shape"])
def test_random_weights_carry_the_pattern(pattern: str) -> None:
    problem = CONV.with_sparsity(pattern, 0.5 if pattern != "dense" else 0.0)
    weight = _make(problem)
    assert weight.shape == problem.weight_shape
    assert weight.dtype == torch.float32
    assert actual_sparsity(weight) == pytest.approx(problem.sparsity, abs=0.1)
    assert torch.equal(weight, _make(problem))
    assert not torch.equal(weight, _make(problem, seed=1))
    assert with_actual_sparsity(problem, weight) == problem


def test_sparse_activations_have_dense_wide_weights() -> None:
    problem = CONV.with_sparsity("sas:1:4", 0.0)
    weight = _make(problem)
    assert weight.shape == problem.weight_shape == (6, 16, 3, 3)
    assert actual_sparsity(weight) == 0.0
    # One of four slots is taken: the variance is that of the narrow layer.
    assert weight.std().item() == pytest.approx((2.0 / 36) ** 0.5, rel=0.1)
    with pytest.raises(UnsupportedError, match="sas:1:2"):
        _make(CONV.with_sparsity("filter+sas:1:2", 0.75))


@pytest.mark.parametrize("name", ["w.mtx", "w.mtx.gz", "w.npy", "four_axes.npy", "array.mtx"])
def test_every_format_gives_the_same_weight(tmp_path: Path, name: str) -> None:
    weight = np.where(np.random.default_rng(0).random((6, 36)) < 0.7, 0.0, 1.25)
    if name == "w.npy":
        np.save(tmp_path / name, weight)
    elif name == "four_axes.npy":
        np.save(tmp_path / name, weight.astype(np.float32).reshape(6, 4, 3, 3))
    elif name == "array.mtx":
        scipy.io.mmwrite(tmp_path / name, weight)
    else:
        scipy.io.mmwrite(tmp_path / "w.mtx", scipy.sparse.coo_matrix(weight))
        (tmp_path / "w.mtx.gz").write_bytes(gzip.compress((tmp_path / "w.mtx").read_bytes()))
    problem = _named(name)
    read = _make(problem, tmp_path)
    assert np.array_equal(read.reshape(6, 36).numpy(), weight)
    assert with_actual_sparsity(problem, read).sparsity == pytest.approx((weight == 0).mean())


def test_an_absolute_name_ignores_the_folder(tmp_path: Path) -> None:
    np.save(tmp_path / "w.npy", np.ones((6, 36)))
    assert _make(_named(str(tmp_path / "w.npy")), Path("elsewhere")).eq(1.0).all()


def test_patterns_that_dictate_their_sparsity_keep_it(tmp_path: Path) -> None:
    np.save(tmp_path / "w.npy", np.eye(6, 36))
    problem = _named("w.npy", "2:4")
    assert with_actual_sparsity(problem, _make(problem, tmp_path)).sparsity == 0.5


HEADER = b"%%MatrixMarket matrix coordinate real general\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.mtx", None, "cannot read weights file"),
        ("none.npy", None, "cannot read weights file .*No such file"),
        ("w.txt", b"1 2", r"unknown ending; allowed are \.mtx, \.mtx\.gz, \.npy"),
        ("w.mtx", b"", "not readable"),
        ("w.mtx", HEADER + b"6 36 3\n1 1 2\n", "not readable: .*Truncated"),
        ("w.mtx", HEADER + b"6 36 1\n7 1 2\n", "not readable: .*out of bounds"),
        ("w.mtx", HEADER + b"6 35 1\n1 1 2\n", r"got shape \(6, 35\), the problem needs \(6, 36\)"),
        ("w.mtx", HEADER + b"999999999 999999999 1\n1 1 2\n", "got shape"),
        ("w.mtx", HEADER + b"6 36 1\n1 1 nan\n", "holds NaN"),
        ("w.mtx", HEADER + b"6 36 1\n1 1 1e300\n", "beyond float32"),
        ("w.mtx.gz", b"plain", "not readable: Not a gzipped file"),
        ("w.mtx.gz", gzip.compress(HEADER * 500)[:40], "not readable"),
        ("w.npy", b"\x93NUMPY", "not readable"),
    ],
)
def test_bad_files(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        _make(_named(name), tmp_path)
    assert name in str(caught.value)


def test_pickles_and_other_kinds_of_array_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "w.npy", np.full((6, 36), None, dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="not readable: Object arrays cannot be loaded"):
        _make(_named("w.npy"), tmp_path)
    np.save(tmp_path / "w.npy", np.ones((6, 36), dtype=np.complex128))
    with pytest.raises(InputError, match="holds complex128; give real numbers"):
        _make(_named("w.npy"), tmp_path)
