"""Knowledge distillation from the dense model: the pruned one learns its logits."""

from __future__ import annotations

import copy

from torch import Tensor, nn


def frozen_copy(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode that is not trained: the teacher."""
    return copy.deepcopy(model).eval().requires_grad_(False)


def distillation_loss(outputs: Tensor, taught: Tensor, *, temperature: float) -> Tensor:
    """Kullback-Leibler divergence of softened outputs from the teacher's, times the temperature squared.

    Parameters
    ----------
    outputs, taught : Tensor
        Logits [N, classes] of student and teacher.

    References
    ----------
    Hinton, Vinyals and Dean, "Distilling the knowledge in a neural network", 2015, section 2.
    """
    student = nn.functional.log_softmax(outputs.float() / temperature, dim=1)
    teacher = nn.functional.log_softmax(taught.float() / temperature, dim=1)
    divergence = nn.functional.kl_div(student, teacher, reduction="batchmean", log_target=True)
    return temperature**2 * divergence
