"""What penalties and masks cost: the time they add to a training step, against the dense step, in alternation.

python -m benchmarks.training_overhead --model zoo:resnet20 --input 128,3,32,32
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable

import torch
from torch import nn

from sparseplan.kernels.pattern import parse_pattern
from sparseplan.kernels.weight_view import weight_view
from sparseplan.model_spec import load_model
from sparseplan.planner.couple import couple
from sparseplan.planner.eval_mode import evaluating
from sparseplan.profiles.timing import measure_alternating
from sparseplan.trainer.assignment import LayerSparsity, WidthSparsity
from sparseplan.trainer.masked_width import MaskedWidth, masked_width
from sparseplan.trainer.masks import update_masks
from sparseplan.trainer.optimizer import make_optimizer
from sparseplan.trainer.regulariser import MASK_EVERY, PruneOptions, Regulariser
from sparseplan.trainer.sas import convert
from sparseplan.trainer.schema import TrainConfig
from sparseplan.trainer.shrink import cut_copy

PATTERNS = (("unstructured", 0.9), ("filter+shape", 0.75), ("block:16x1", 0.75), ("2:4", 0.5))
GOAL = 1.10
PRUNE_STEPS = 10**6


def main() -> int:
    """Print one JSON object a family."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="zoo:resnet20", metavar="SPEC")
    parser.add_argument("--input", default="128,3,32,32", metavar="N,C,H,W")
    parser.add_argument("--budget-s", type=float, default=30.0, metavar="S")
    parser.add_argument("--threads", type=int, default=2, metavar="N")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    shape = tuple(int(size) for size in given.input.split(","))
    calls = {
        "dense": dense_step(network(given.model), shape),
        "sas:1:2": dense_step(network(given.model, 2), shape),
        "half of the widths, masked": dense_step(half_masked(given.model, shape)[0], shape),
        "half of the widths, cut out": dense_step(half_cut(given.model, shape), shape),
    }
    masks = {
        f"{pattern}, pruning": cycle(given.model, pattern, sparsity, PRUNE_STEPS) for pattern, sparsity in PATTERNS
    }
    masks["filter+shape, masks fixed"] = cycle(given.model, "filter+shape", 0.75, 0)
    times = measure_alternating([*calls.values(), *masks.values()], budget_s=given.budget_s)
    medians = {name: time.median for name, time in zip([*calls, *masks], times, strict=True)}
    for name, time_s in medians.items():
        step_s = medians["dense"] + time_s / MASK_EVERY if name in masks else time_s
        over = step_s / medians["dense"]
        goal = {"within_goal": over <= GOAL} if name in masks else {}
        print(json.dumps({"family": name, "step_ms": 1e3 * step_s, "times_dense": over, **goal}))
    return 0


def network(spec: str, slots: int = 1) -> nn.Module:
    """In training mode and channels_last, under SAS where there are more slots than one."""
    torch.manual_seed(0)
    model = load_model(spec)
    model = convert(model, slots) if slots > 1 else model
    return model.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def half_masked(spec: str, shape: tuple[int, ...]) -> tuple[nn.Module, list[MaskedWidth]]:
    """With half the channels of every width group held at zero."""
    model = network(spec)
    layers = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    with evaluating(model):
        groups = couple(model, torch.randn(2, *shape[1:]), layers=layers).groups
    widths = [masked_width(model, WidthSparsity(group=group, kept=group.units // 2)) for group in groups]
    update_masks(widths, done_frac=1.0)
    return model, widths


def half_cut(spec: str, shape: tuple[int, ...]) -> nn.Module:
    """The same without these channels: what the later epochs train."""
    cut = cut_copy(*half_masked(spec, shape))
    assert cut is not None
    return cut.model


def dense_step(model: nn.Module, shape: tuple[int, ...]) -> Callable[[], None]:
    """A step without any regulariser."""
    optimizer = make_optimizer(model, TrainConfig(epochs=1, learning_rate=1e-3))
    images = torch.randn(shape).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(10, shape[:1])

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()

    return step


def cycle(spec: str, pattern: str, sparsity: float, prune_steps: int) -> Callable[[], None]:
    """All that the regulariser does in as many steps as lie between two updates of its masks."""
    model = network(spec)
    layers = tuple(
        LayerSparsity(name=name, pattern=parse_pattern(pattern), sparsity=sparsity)
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and min(weight_view(module).shape[:2]) >= 16
    )
    optimizer = make_optimizer(model, TrainConfig(epochs=1, learning_rate=1e-3))
    regulariser = Regulariser(model, layers, optimizer, options=PruneOptions(prune_steps=prune_steps))
    regulariser.start()
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)

    def steps() -> None:
        for _ in range(MASK_EVERY):
            regulariser.before_step()
            regulariser.step()

    return steps


if __name__ == "__main__":
    sys.exit(main())
