"""The layers of known networks, each distinct one once, by the names that ``--layers`` takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from sparseplan.kernels.documents import read_records
from sparseplan.kernels.problem import Problem

PROBLEMS = Path(__file__).resolve().parents[1] / "problems"
SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
"""Data beside the repository; sets that need it are left out where it is absent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One layer at batch 1; `problem.weights` names a file where the layer is pruned already."""

    name: str
    problem: Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSet:
    """Layers under one name, or why they are not here."""

    name: str
    about: str
    make: Callable[[], tuple[Layer, ...]]
    why_absent: str | None = None


def _conv(name: str, c_in: int, c_out: int, size: int, kernel: int, stride: int = 1) -> Layer:
    return Layer(
        name=name,
        problem=Problem(
            op="conv2d",
            n=1,
            c_in=c_in,
            c_out=c_out,
            h_in=size,
            w_in=size,
            kernel=(kernel, kernel),
            stride=(stride, stride),
            padding=(kernel // 2, kernel // 2),
        ),
    )


def _linear(name: str, c_in: int, c_out: int, rows: int = 1) -> Layer:
    return Layer(name=name, problem=Problem(op="linear", n=rows, c_in=c_in, c_out=c_out))


def _alexnet() -> tuple[Layer, ...]:
    found = []
    for problem in read_records(PROBLEMS / "alexnet_pruned.jsonl", Problem, kind="problem"):
        file = Path(str(problem.weights)).name
        weights = str(SHARED / "alexnet_pruned" / file)
        found.append(Layer(name=file.removesuffix(".mtx.gz"), problem=replace(problem, n=1, weights=weights)))
    return tuple(found)


def _resnet50() -> tuple[Layer, ...]:
    layers = [_conv("conv1", 3, 64, 224, 7, 2)]
    width_in, size_in = 64, 56
    for stage, width in enumerate((64, 128, 256, 512), start=1):
        stride, wide = 1 if stage == 1 else 2, 4 * width
        size = size_in // stride
        block = f"layer{stage}.0"
        layers += [
            _conv(f"{block}.conv1", width_in, width, size_in, 1),
            _conv(f"{block}.conv2", width, width, size_in, 3, stride),
            _conv(f"{block}.conv3", width, wide, size, 1),
            _conv(f"layer{stage}.1.conv1", wide, width, size, 1),
        ]
        if stage > 1:
            layers += [
                _conv(f"{block}.downsample", width_in, wide, size_in, 1, stride),
                _conv(f"layer{stage}.1.conv2", width, width, size, 3),
            ]
        width_in, size_in = wide, size
    return (*layers, _linear("fc", 2048, 1000))


def _resnet50_with(kernel: int) -> tuple[Layer, ...]:
    return tuple(
        layer for layer in _resnet50() if layer.problem.op == "conv2d" and layer.problem.kernel == (kernel, kernel)
    )


def _vgg16() -> tuple[Layer, ...]:
    stages = (
        (224, ((3, 64), (64, 64))),
        (112, ((64, 128), (128, 128))),
        (56, ((128, 256), (256, 256))),
        (28, ((256, 512), (512, 512))),
        (14, ((512, 512),)),
    )
    return (
        *(
            _conv(f"conv{stage}_{number}", c_in, c_out, size, 3)
            for stage, (size, widths) in enumerate(stages, start=1)
            for number, (c_in, c_out) in enumerate(widths, start=1)
        ),
        _linear("fc7", 4096, 4096),
        _linear("fc8", 4096, 1000),
    )


def _mobilenetv2() -> tuple[Layer, ...]:
    """The expansions and projections; the depth-wise layers between them have nothing worth pruning."""
    found: dict[Problem, Layer] = {}
    width_in, size = 32, 112
    # Sandler et al., MobileNetV2, CVPR 2018, table 2: expansion, width, repeats, stride.
    table = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    for stage, (expansion, width, repeats, first_stride) in enumerate(table, start=1):
        for repeat in range(repeats):
            inner = width_in * expansion
            if expansion > 1:
                expand = _conv(f"stage{stage}.{repeat}.expand", width_in, inner, size, 1)
                found.setdefault(expand.problem, expand)
            size //= first_stride if repeat == 0 else 1
            project = _conv(f"stage{stage}.{repeat}.project", inner, width, size, 1)
            found.setdefault(project.problem, project)
            width_in = width
    return (*found.values(), _conv("last", 320, 1280, 7, 1))


def _bert_base(rows: int) -> tuple[Layer, ...]:
    return (
        _linear("attention", 768, 768, rows),
        _linear("intermediate", 768, 3072, rows),
        _linear("output", 3072, 768, rows),
    )


def _vit_b() -> tuple[Layer, ...]:
    return (
        _linear("qkv", 768, 2304, 197),
        _linear("projection", 768, 768, 197),
        _linear("mlp.0", 768, 3072, 197),
        _linear("mlp.3", 3072, 768, 197),
    )


def _tiny() -> tuple[Layer, ...]:
    return (_conv("conv", 16, 32, 8, 3), _linear("linear", 64, 48, 16))


_NO_DATA = None if (SHARED / "alexnet_pruned").is_dir() else "needs ../shared/data/alexnet_pruned beside the repository"

LAYER_SETS = (
    LayerSet(name="alexnet", about="AlexNet pruned by GSL, its own weights", make=_alexnet, why_absent=_NO_DATA),
    LayerSet(name="resnet50", about="ResNet-50 at 224x224, all of it", make=_resnet50),
    LayerSet(name="resnet50-3x3", about="its 3x3 convolutions", make=lambda: _resnet50_with(3)),
    LayerSet(name="resnet50-1x1", about="its 1x1 convolutions", make=lambda: _resnet50_with(1)),
    LayerSet(name="vgg16", about="VGG-16 at 224x224, without fc6", make=_vgg16),
    LayerSet(
        name="vgg16-fc6",
        about="its 103 million weights: making and packing them takes a third of a minute a case",
        make=lambda: (_linear("fc6", 25088, 4096),),
    ),
    LayerSet(name="mobilenetv2-1x1", about="MobileNetV2's 1x1 convolutions at 224x224", make=_mobilenetv2),
    LayerSet(name="bert-base", about="BERT-base linears, 128 tokens", make=lambda: _bert_base(128)),
    LayerSet(name="bert-base-1", about="BERT-base linears, 1 token", make=lambda: _bert_base(1)),
    LayerSet(name="vit-b", about="ViT-B linears, 197 tokens", make=_vit_b),
    LayerSet(name="tiny", about="two small layers, to try the program", make=_tiny),
)
"""Named layer sets."""

DEFAULT_SETS = ("alexnet", "resnet50", "vgg16", "mobilenetv2-1x1", "bert-base", "bert-base-1", "vit-b")
