"""A machine whose times follow from counts of work, so that planner tests need no measurement."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sparseplan.kernels.problem import Problem
from sparseplan.kernels.spec import Cost, KernelSpec, Machine
from sparseplan.perfmodel.network import NetworkTerms
from sparseplan.perfmodel.predict import PerformanceModel, Prediction
from sparseplan.planner.request import PlanContext
from sparseplan.profiles.schema import Ceiling, Fingerprint, MachineProfile

FLOP_PER_S = 1e9
BYTE_PER_S = 1e10


def _never(*_: Any) -> Any:
    raise AssertionError("the planner must not pack or run a kernel")


def fake_kernel(name: str, op: str, patterns: tuple[str, ...], layout: str = "nchw") -> KernelSpec:
    return KernelSpec(
        name=name,
        op=cast(Any, op),
        patterns=patterns,
        dtype="float32",
        isa="any",
        layout=cast(Any, layout),
        pack=_never,
        run=_never,
        cost=cast(Callable[[Problem], Cost], _never),
        why_unsupported=lambda problem, machine: None,
    )


FAKE_REGISTRY = (
    fake_kernel("conv2d_dense_fake", "conv2d", ("dense",)),
    fake_kernel("linear_dense_fake", "linear", ("dense",)),
    fake_kernel("conv2d_unstructured_fake", "conv2d", ("unstructured",)),
    fake_kernel("linear_unstructured_fake", "linear", ("unstructured",)),
    fake_kernel("conv2d_compact_fake", "conv2d", ("filter", "channel")),
)


@dataclass(frozen=True)
class FakeModel:
    """Dense kernels run at 1 Gflop/s; a kernel that skips runs its useful flop at `efficiency` of that."""

    efficiency: dict[str, float]
    spread_frac: float = 0.05
    threads: int = 1
    network = NetworkTerms(call_s=0.0, layer_s=0.0, kind_s=0.0, refetch_frac=1.0, handover_frac=1.0, between_scale=1.0)

    def predict(self, problem: Problem, kernel: str) -> Prediction:
        flop = problem.flop_dense_equiv if "dense" in kernel else problem.flop_useful
        return self._spread(flop / FLOP_PER_S / self.efficiency.get(kernel, 1.0), "arithmetic")

    def predict_many(self, problems: Sequence[Problem], kernel: str) -> tuple[Prediction, ...]:
        return tuple(self.predict(problem, kernel) for problem in problems)

    def waits_s(self, problems: Sequence[Problem], kernel: str, network_bytes: float) -> Any:
        return np.zeros(len(problems))

    def predict_elementwise(self, operation: str, bytes_moved: float) -> Prediction:
        return self._spread(bytes_moved / BYTE_PER_S, "memory")

    predict_between = predict_elementwise

    def _spread(self, time_s: float, bound: str) -> Prediction:
        return Prediction(
            median_s=time_s,
            low_s=time_s / (1.0 + self.spread_frac),
            high_s=time_s * (1.0 + self.spread_frac),
            bound=bound,
            extrapolated=False,
        )


def fake_profile() -> MachineProfile:
    return MachineProfile(
        created=datetime(2025, 1, 1, tzinfo=UTC),
        budget="quick",
        threads=1,
        fingerprint=Fingerprint(
            cpu_model="Fake CPU",
            isa=("baseline",),
            cores_physical=1,
            cores_usable=1,
            l1d_bytes=32768,
            l2_bytes=1 << 20,
            l3_bytes=1 << 24,
            memory_bytes=1 << 30,
            gpu_model=None,
            operating_system="none",
            python_version="3",
            torch_version="2",
            sparseplan_version="0",
        ),
        ceilings=(
            Ceiling(
                name="latency_s:torch_op",
                value=1e-7,
                low=1e-7,
                high=1e-7,
                unit="s",
                threads=1,
                source="measured",
            ),
        ),
        samples=(),
        elementwise=(),
        networks=(),
        stability=(),
        duration_s=1.0,
    )


@pytest.fixture
def make_context() -> Callable[..., PlanContext]:
    """Build a context from the efficiency of each fake kernel."""

    def build(efficiency: dict[str, float] | None = None, spread_frac: float = 0.05) -> PlanContext:
        return PlanContext(
            profile=fake_profile(),
            profile_path="profile.json",
            profile_sha256="0" * 64,
            performance_model=cast(PerformanceModel, FakeModel(efficiency or {}, spread_frac)),
            machine=Machine(isa=("baseline",)),
            registry=FAKE_REGISTRY,
        )

    return build


class SmallNet(nn.Module):
    """Residual, grouped, depth-wise and linear, on 8x8 images."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.wide = nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.grouped = nn.Conv2d(32, 32, 3, padding=1, groups=4)
        self.depthwise = nn.Conv2d(32, 32, 3, padding=1, groups=32)
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = torch.relu(self.wide(x))
        x = torch.relu(x + self.depthwise(self.grouped(x)))
        return self.head(x.mean(dim=(2, 3)))


@pytest.fixture
def small_net() -> nn.Module:
    torch.manual_seed(0)
    return SmallNet()


@pytest.fixture(scope="session")
def digits() -> tuple[Tensor, Tensor]:
    """Images [1797, 1, 8, 8] in [0, 1] and their labels."""
    from sklearn.datasets import load_digits

    found = load_digits()
    images = torch.tensor(found.images, dtype=torch.float32)[:, None] / 16.0
    return images, torch.tensor(found.target)


@pytest.fixture(scope="session")
def trained_net(digits: tuple[Tensor, Tensor]) -> nn.Module:
    """The small network after a few seconds of training."""
    torch.manual_seed(0)
    images, labels = digits
    model = SmallNet()
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(5):
        for batch in torch.randperm(1000).split(50):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimiser.step()
    return model.eval()
