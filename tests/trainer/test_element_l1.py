"""Element-wise L1 with a threshold: its formula, and that weights come back."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sparseplan.trainer.element_l1 import ElementL1, ThinningWeights


def test_the_threshold_is_the_formula_of_the_paper() -> None:
    method = ElementL1(strength=1.0, threshold=1e-4, factor=10.0)
    least = method.least(torch.tensor([0.0, 0.1, -0.1, 100.0], dtype=torch.float64))
    assert least.tolist() == pytest.approx([1e-3, 5e-4, 5e-4, 1.0 / (1e6 + 1e3)])


def test_a_step_is_a_subgradient_and_a_cut_and_weights_may_return() -> None:
    weight = nn.Parameter(torch.tensor([1.0, -1.0, 0.05, 0.0]))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    thinning = ThinningWeights(ElementL1(strength=0.5, threshold=0.01, factor=10.0))
    weight.grad = torch.tensor([0.0, 0.0, 0.0, -2.0])
    thinning.before_step([weight])
    optimizer.step()
    thinning.after_step()
    # By 0.1 * 0.5 towards zero; the third falls under 0.1; the last was zero and leaves it by its own gradient.
    assert weight.tolist() == pytest.approx([0.95, -0.95, 0.0, 0.2])
