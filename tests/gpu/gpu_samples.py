"""Small layers of every awkward kind for kernels of a GPU, and machines that they may run on."""

from __future__ import annotations

import torch
from kernel_agreement import awkward_weights
from torch import Tensor

from sparseplan.kernels.gpu.machine import gpu_machine
from sparseplan.kernels.inputs import LayerInputs, random_inputs
from sparseplan.kernels.problem import Problem
from sparseplan.kernels.weights import make_weight

HOPPER = gpu_machine((9, 0), has_triton=True, has_cusparselt=True)
AMPERE = gpu_machine((8, 0), has_triton=True, has_cusparselt=True)

CONVOLUTIONS = {
    "odd": Problem(op="conv2d", n=3, c_in=7, c_out=21, h_in=5, w_in=6, kernel=(3, 3), padding=(1, 1)),
    "tail": Problem(op="conv2d", n=2, c_in=48, c_out=72, h_in=5, w_in=4, kernel=(3, 3), padding=(1, 1)),
    "pointwise": Problem(op="conv2d", n=2, c_in=80, c_out=32, h_in=5, w_in=7),
    "strided": Problem(op="conv2d", n=2, c_in=16, c_out=16, h_in=9, w_in=10, kernel=(3, 3), stride=(2, 3)),
    "strided_padded": Problem(
        op="conv2d", n=1, c_in=32, c_out=24, h_in=9, w_in=8, kernel=(3, 2), stride=(2, 1), padding=(1, 2)
    ),
    "dilated": Problem(
        op="conv2d", n=2, c_in=24, c_out=16, h_in=8, w_in=9, kernel=(2, 3), dilation=(3, 2), padding=(2, 1)
    ),
    "grouped": Problem(op="conv2d", n=2, c_in=96, c_out=60, h_in=4, w_in=4, kernel=(3, 3), padding=(1, 1), groups=3),
    "wide_padding": Problem(op="conv2d", n=1, c_in=3, c_out=4, h_in=3, w_in=2, kernel=(4, 2), padding=(3, 2)),
    "one_pixel": Problem(op="conv2d", n=5, c_in=64, c_out=64, h_in=3, w_in=3, kernel=(3, 3)),
    "one_of_all": Problem(op="conv2d", n=1, c_in=1, c_out=1, h_in=1, w_in=1),
}
LINEARS = {
    "odd": Problem(op="linear", n=3, c_in=37, c_out=21),
    "tail": Problem(op="linear", n=70, c_in=176, c_out=90),
    "full_blocks": Problem(op="linear", n=64, c_in=128, c_out=128),
    "one_sample": Problem(op="linear", n=1, c_in=1504, c_out=10),
    "one_of_all": Problem(op="linear", n=1, c_in=1, c_out=1),
}


def weights(problem: Problem, generator: torch.Generator) -> dict[str, Tensor]:
    """Few weights where they are strewn: an interpreter takes its time for each."""
    return awkward_weights(problem, generator, scattered=0.05)


SAS_LAYERS = {
    "tail": Problem(op="linear", n=150, c_in=72, c_out=136),
    "bands": Problem(op="linear", n=1100, c_in=8, c_out=136),
    "deep": Problem(op="linear", n=3, c_in=264, c_out=8),
    "padded": Problem(op="conv2d", n=2, c_in=40, c_out=72, h_in=5, w_in=6, kernel=(3, 3), padding=(1, 1)),
    "strided": Problem(
        op="conv2d",
        n=3,
        c_in=8,
        c_out=24,
        h_in=9,
        w_in=8,
        kernel=(3, 2),
        stride=(2, 3),
        padding=(2, 1),
        dilation=(1, 2),
    ),
}
"""Tiles that end anywhere, more bands of tiles than one, and more steps than buffers."""


def sas_inputs(shape: Problem) -> LayerInputs:
    """A layer under SAS 1:2 and an input of it, with zeros among it."""
    problem = shape.with_sparsity("sas:1:2", 0.5)
    generator = torch.Generator().manual_seed(1)
    inputs = random_inputs(problem, make_weight(problem, generator), generator)
    inputs.x[0, ::3] = 0.0
    return inputs
