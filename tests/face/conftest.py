"""A profile of a quiet machine, and a small model with data, for tests of the commands."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import pytest

from sparseplan.kernels.cpu import detect_machine
from sparseplan.kernels.problem import Problem
from sparseplan.kernels.registry import REGISTRY
from sparseplan.profiles.fingerprint import read_fingerprint
from sparseplan.profiles.sample_kernels import kernels_to_time
from sparseplan.profiles.schema import Ceiling, ElementwiseSample, KernelSample, MachineProfile
from sparseplan.profiles.store import save_profile
from sparseplan.profiles.timing import TimeStats

USER_FILE = """
import numpy as np
import torch
from torch import nn


def model():
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 96, 3, padding=1), nn.BatchNorm2d(96), nn.ReLU(),
        nn.Conv2d(96, 96, 3, padding=1), nn.BatchNorm2d(96), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(96, 4),
    )


def data():
    generator = np.random.default_rng(0)
    def split(count):
        labels = generator.integers(0, 4, count)
        images = generator.normal(0, 0.3, (count, 1, 8, 8)).astype("float32")
        for image, label in zip(images, labels):
            image[0, label * 2 : label * 2 + 2] += 1.0
        return images, labels
    (train_x, train_y), (test_x, test_y) = split(400), split(100)
    return train_x, train_y, test_x, test_y
"""


@pytest.fixture(scope="session")
def user_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's Python file with a model and data."""
    path = tmp_path_factory.mktemp("user") / "user_net.py"
    path.write_text(USER_FILE)
    return path


CEILINGS: tuple[tuple[str, float, Literal["flop/s", "byte/s", "s"]], ...] = (
    ("flop_per_s:fma_f32", 1e11, "flop/s"),
    ("bandwidth_byte_per_s:l1", 2e11, "byte/s"),
    ("bandwidth_byte_per_s:l2", 1e11, "byte/s"),
    ("bandwidth_byte_per_s:l3", 8e10, "byte/s"),
    ("bandwidth_byte_per_s:dram", 2e10, "byte/s"),
    ("latency_s:parallel_region", 1e-6, "s"),
    ("latency_s:torch_op", 1e-6, "s"),
)


def _exactly(time_s: float) -> TimeStats:
    return TimeStats(median=time_s, low=0.999 * time_s, high=1.001 * time_s, n=9)


@pytest.fixture(scope="session")
def profile_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A quiet one-thread machine with this one's identity: every kernel reaches half the peak on what it executes.

    Made up, so that what is planned does not depend on how busy the machine of the tests is; what the commands then
    measure is real.
    """
    machine = detect_machine()
    samples: list[KernelSample] = []
    for c_in, c_out in ((1, 32), (32, 96), (96, 96)):
        conv = Problem(op="conv2d", n=16, c_in=c_in, c_out=c_out, h_in=8, w_in=8, kernel=(3, 3), padding=(1, 1))
        linear = Problem(op="linear", n=16, c_in=96, c_out=4)
        sparse = [conv.with_sparsity("unstructured", sparsity) for sparsity in (0.5, 0.8, 0.9, 0.95)]
        samples += [
            KernelSample(
                problem=problem,
                kernel=kernel.name,
                time_s=_exactly(2e-6 + kernel.cost(problem).flop / 5e10),
                pack_time_s=1e-3,
                noisy=False,
            )
            for problem in (conv, linear, *sparse)
            for kernel in kernels_to_time(problem, machine, REGISTRY, every_isa=True)
        ]
    profile = MachineProfile(
        created=datetime.now(UTC),
        budget="quick",
        threads=1,
        fingerprint=read_fingerprint(machine),
        ceilings=tuple(
            Ceiling(name=name, value=value, low=value, high=value, unit=unit, threads=1, source="assumed")
            for name, value, unit in CEILINGS
        ),
        samples=tuple(samples),
        elementwise=tuple(
            ElementwiseSample(operation="relu", bytes_moved=size, threads=1, time_s=_exactly(2e-6 + size / 5e10))
            for size in (1e4, 1e5, 1e6, 1e7)
        ),
        networks=(),
        stability=(),
        duration_s=1.0,
    )
    path = tmp_path_factory.mktemp("profile") / "profile.json"
    save_profile(path, profile)
    return path
