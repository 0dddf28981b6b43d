"""A small but real profile of this machine, and a small model with data, for tests of the commands."""

import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch

from sparseplan.kernels import _native
from sparseplan.kernels.cpu import detect_machine
from sparseplan.kernels.problem import Problem
from sparseplan.kernels.registry import REGISTRY
from sparseplan.kernels.select import eligible
from sparseplan.profiles.ceilings import measure_ceilings
from sparseplan.profiles.fingerprint import read_fingerprint
from sparseplan.profiles.measure_elementwise import measure_elementwise
from sparseplan.profiles.sample_kernels import sample_kernels
from sparseplan.profiles.schema import KernelSample, MachineProfile
from sparseplan.profiles.store import save_profile

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


@pytest.fixture(scope="session")
def profile_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Measured in a few seconds on the layers of the user's model, one thread."""
    start = time.perf_counter()
    machine = detect_machine()
    fingerprint = read_fingerprint(machine)
    threads_before = torch.get_num_threads()
    torch.set_num_threads(1)
    samples: list[KernelSample] = []
    generator = torch.Generator().manual_seed(0)
    for c_in, c_out in ((1, 32), (32, 96), (96, 96)):
        conv = Problem(op="conv2d", n=16, c_in=c_in, c_out=c_out, h_in=8, w_in=8, kernel=(3, 3), padding=(1, 1))
        for problem in (conv, *(conv.with_sparsity("unstructured", sparsity) for sparsity in (0.5, 0.8, 0.9, 0.95))):
            samples += sample_kernels(problem, eligible(problem, machine, REGISTRY), generator=generator, budget_s=0.02)
    linear = Problem(op="linear", n=16, c_in=96, c_out=4)
    samples += sample_kernels(linear, eligible(linear, machine, REGISTRY), generator=generator, budget_s=0.02)
    profile = MachineProfile(
        created=datetime.now(UTC),
        budget="quick",
        threads=1,
        fingerprint=fingerprint,
        ceilings=measure_ceilings(fingerprint, _native, threads=1),
        samples=tuple(samples),
        elementwise=tuple(measure_elementwise(threads=1, budget_s=0.5)),
        duration_s=time.perf_counter() - start,
    )
    torch.set_num_threads(threads_before)
    path = tmp_path_factory.mktemp("profile") / "profile.json"
    save_profile(path, profile)
    return path
