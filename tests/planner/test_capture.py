"""What capture finds in models of many kinds."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparseplan.kernels.errors import InputError, SparseplanWarning
from sparseplan.kernels.problem import Problem
from sparseplan.planner.capture import Captured, capture
from sparseplan.planner.capture_export import trace_by_export
from sparseplan.planner.capture_fx import trace_by_fx
from sparseplan.planner.capture_hooks import trace_by_hooks
from sparseplan.planner.example import random_example
from sparseplan.planner.rest_operations import rest_operations
from sparseplan.planner.trace import Trace
from sparseplan.zoo.bert import Encoder
from sparseplan.zoo.gpt2 import DecoderBlock
from sparseplan.zoo.vit import VisionTransformer

BATCH = 2


def layers_of(captured: Captured) -> dict[str, Problem]:
    return {layer.name: layer.problem for layer in captured.layers}


def rest_of(captured: Captured) -> list[tuple[str, float]]:
    return [(each.operation, each.bytes_moved) for each in captured.rest]


def test_shapes_of_every_kind_of_layer(small_net: nn.Module) -> None:
    captured = capture(small_net, torch.randn(BATCH, 1, 8, 8))
    assert captured.method == "export"
    assert captured.skipped == ()
    conv = {"op": "conv2d", "n": BATCH, "kernel": (3, 3), "padding": (1, 1)}
    assert layers_of(captured) == {
        "stem": Problem(**conv, c_in=1, c_out=16, h_in=8, w_in=8),
        "wide": Problem(**conv, c_in=16, c_out=32, h_in=8, w_in=8, stride=(2, 2)),
        "grouped": Problem(**conv, c_in=32, c_out=32, h_in=4, w_in=4, groups=4),
        "depthwise": Problem(**conv, c_in=32, c_out=32, h_in=4, w_in=4, groups=32),
        "head": Problem(op="linear", n=BATCH, c_in=32, c_out=10),
    }


def test_rest_counts_what_is_not_fused(small_net: nn.Module) -> None:
    image = BATCH * 32 * 4 * 4 * 4
    assert rest_of(capture(small_net, torch.randn(BATCH, 1, 8, 8))) == [
        ("add", 3 * image),  # reads two, writes one
        ("relu", 2 * image),  # behind the addition, so no kernel takes it
        ("mean", image + BATCH * 32 * 4),
    ]


class ReadTwice(nn.Module):
    """The batch norm's input is needed again, so it cannot be folded away."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 1)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.norm(y) + y


@pytest.mark.parametrize("trace", [trace_by_export, trace_by_fx])
def test_nothing_is_fused_where_the_value_is_read_twice(trace: Callable[[nn.Module, Tensor], Trace]) -> None:
    names = [operation.operation for operation in trace(ReadTwice().eval(), torch.randn(BATCH, 1, 4, 4))]
    assert names[0] == "conv2d"
    rest = [name for name, _ in rest_of(capture(ReadTwice(), torch.randn(BATCH, 1, 4, 4)))]
    assert rest == ["batch_norm", "add"]


def test_the_three_ways_see_the_same_layers(small_net: nn.Module) -> None:
    example = torch.randn(BATCH, 1, 8, 8)
    small_net.eval()
    found = [
        [
            (each.operation, each.module, [value.shape for value in each.inputs])
            for each in trace(small_net, example)
            if each.operation in ("conv2d", "linear")
        ]
        for trace in (trace_by_export, trace_by_fx, trace_by_hooks)
    ]
    assert len(found[0]) == 5
    assert found[0] == found[1] == found[2]


class DependsOnData(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x))
        if float(x.sum()) > 1e9:
            x = x * 2
        return self.pool(x)


def test_control_flow_on_data_falls_back_to_hooks() -> None:
    with pytest.warns(SparseplanWarning, match=r"cannot take DependsOnData at test_capture.py:\d+ \(if float.*hooks"):
        captured = capture(DependsOnData(), torch.randn(BATCH, 1, 10, 10))
    assert captured.method == "hooks"
    assert list(layers_of(captured)) == ["conv"]
    assert rest_of(captured) == [("max_pool", (BATCH * 4 * 8 * 8 + BATCH * 4 * 4 * 4) * 4)]


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(4, 4, 1)
        self.again = self.mix
        self.scale = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.again(self.mix(x))
        return self.scale(x).mean() + self.scale(x[:, :, :4]).mean()


def test_a_shared_layer_is_one_decision() -> None:
    captured = capture(Shared(), torch.randn(BATCH, 4, 8, 8))
    assert [(layer.name, layer.calls) for layer in captured.layers] == [("mix", 2)]
    (skipped,) = captured.skipped
    assert skipped.name == "scale"
    assert "different input shapes" in skipped.reason


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 4)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))


def test_tied_weights_are_skipped() -> None:
    captured = capture(Tied(), torch.randn(BATCH, 4))
    assert captured.layers == ()
    reasons = {layer.name: layer.reason for layer in captured.skipped}
    assert "'second'" in reasons["first"]


class Zoo(nn.Module):
    """Layers that cannot be planned, and ways to call those that can."""

    def __init__(self) -> None:
        super().__init__()
        self.same = nn.Conv2d(2, 4, 3, padding="same", dilation=2)
        self.even = nn.Conv2d(4, 4, 2, padding="same")
        self.circular = nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular")
        self.up = nn.ConvTranspose2d(4, 4, 2, stride=2)
        self.line = nn.Conv1d(4, 4, 1)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
        self.each = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(self.circular(self.even(F.gelu(self.same(x)))))
        tokens = self.line(x.flatten(2)).transpose(1, 2)
        tokens, _ = self.attention(tokens, tokens, tokens)
        return self.each(self.normed(tokens)).mean(1)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
def test_what_cannot_be_planned_is_skipped_with_a_reason() -> None:
    captured = capture(Zoo(), torch.randn(BATCH, 2, 4, 4))
    assert captured.method == "export"
    assert layers_of(captured) == {
        "same": Problem(
            op="conv2d", n=BATCH, c_in=2, c_out=4, h_in=4, w_in=4, kernel=(3, 3), padding=(2, 2), dilation=(2, 2)
        ),
        "line": Problem(op="conv2d", n=BATCH, c_in=4, c_out=4, h_in=1, w_in=64),
        "each": Problem(op="linear", n=BATCH * 64, c_in=4, c_out=3),
    }
    reasons = {layer.name: (layer.kind, layer.reason) for layer in captured.skipped}
    assert reasons["even"][0] == "Conv2d"
    assert "even kernel" in reasons["even"][1]
    assert "circular" in reasons["circular"][1]
    assert reasons["up"][0] == "ConvTranspose2d"
    assert "outside a Conv1d, Conv2d or Linear" in reasons["attention"][1]
    assert "parametrization" in reasons["normed"][1]
    rest = [name for name, _ in rest_of(captured)]
    assert "gelu" in rest
    assert "softmax" in rest
    assert "convtranspose2d" in rest


def test_the_model_is_left_as_it_was(small_net: nn.Module) -> None:
    small_net.train()
    small_net.get_submodule("norm").eval()
    before = {name: value.clone() for name, value in small_net.state_dict().items()}
    capture(small_net, torch.randn(BATCH, 1, 8, 8))
    assert small_net.training
    assert not small_net.get_submodule("norm").training
    assert small_net.get_submodule("stem").training
    assert all(torch.equal(before[name], value) for name, value in small_net.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in small_net.modules())


@pytest.mark.parametrize(
    ("shape", "parts"),
    [
        ((2, 3, 8, 8), ("layer 'stem' (Conv2d, weight [16, 1, 3, 3])", "was given [2, 3, 8, 8]", "1 channels")),
        ((2, 64), ("layer 'stem'", "[2, 64]")),
    ],
)
def test_wrong_input_shape_names_the_layer(
    small_net: nn.Module, shape: tuple[int, ...], parts: tuple[str, ...]
) -> None:
    with pytest.raises(InputError) as caught:
        capture(small_net, torch.randn(shape))
    message = str(caught.value)
    assert "\n" not in message
    assert all(part in message for part in parts)


def test_wrong_input_shape_inside_a_functional_operation() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 4))
    with pytest.raises(InputError, match=r"layer '2' \(Linear, weight \[4, 72\]\) was given \[1, 128\]"):
        capture(model, torch.randn(1, 1, 10, 10))


class Pools(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.pool = nn.MaxPool2d((3, 2), stride=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.conv(x))


@pytest.mark.parametrize("trace", [trace_by_export, trace_by_fx, trace_by_hooks])
def test_pooling_reads_its_input_once_for_each_window(trace: Callable[[nn.Module, Tensor], Trace]) -> None:
    traced = trace(Pools().eval(), torch.randn(BATCH, 1, 8, 8))
    rest = rest_operations(traced, frozenset({"conv"}))
    moved = [each.bytes_moved for each in rest if each.operation == "max_pool"]
    assert moved == [(6 + 1) * BATCH * 4 * 6 * 7 * 4]


class Decoder(nn.Module):
    """Token ids through a decoder block with written-out attention, and an output layer tied to the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.block = DecoderBlock(8, heads=2)

    def forward(self, ids: Tensor) -> Tensor:
        return F.linear(self.block(self.embed(ids)), self.embed.weight)


def test_a_decoder_block_on_token_ids() -> None:
    model = Decoder()
    captured = capture(model, random_example(model, (BATCH, 5)))
    assert captured.method == "export"
    assert [layer.name for layer in captured.layers] == [
        "block.attn.c_attn",
        "block.attn.c_proj",
        "block.mlp.c_fc",
        "block.mlp.c_proj",
    ]
    assert all(layer.problem.n == 5 * BATCH for layer in captured.layers)
    reasons = {layer.name: layer.reason for layer in captured.skipped}
    assert "outside a Conv1d, Conv2d or Linear" in reasons["functional linear"]
    assert "embedding has no sparse kernel" in reasons["embed"]
    # Scores and values of written-out attention, and the output layer, whose weight is the embedding's.
    assert [product for operation in captured.rest for product in operation.products] == [
        Problem(op="linear", n=BATCH * 2 * 5, c_in=4, c_out=5),
        Problem(op="linear", n=BATCH * 2 * 5, c_in=5, c_out=4),
        Problem(op="linear", n=BATCH * 5, c_in=8, c_out=11),
    ]


def test_an_encoder_like_bert() -> None:
    encoder = Encoder(8, depth=2, heads=2)
    captured = capture(encoder, torch.randn(BATCH, 5, 8))
    assert captured.method == "export"
    assert len(captured.layers) == 2 * 6
    assert "layer.1.attention.self.query" in layers_of(captured)
    assert captured.skipped == ()


def test_a_vision_transformer() -> None:
    model = VisionTransformer(width=16, depth=1, heads=2, classes=3)
    captured = capture(model, torch.randn(1, 3, 224, 224))
    assert set(layers_of(captured)) == {
        "patch_embed.proj",
        "blocks.0.attn.qkv",
        "blocks.0.attn.proj",
        "blocks.0.mlp.fc1",
        "blocks.0.mlp.fc2",
        "head",
    }
    # 196 patches and the class token, two heads of 8.
    scores = Problem(op="linear", n=2 * 197, c_in=8, c_out=197)
    weighted = Problem(op="linear", n=2 * 197, c_in=197, c_out=8)
    assert [each.products for each in captured.rest if each.products] == [(scores, weighted)]
    assert [each.bytes_moved for each in captured.rest if each.operation == "softmax"] == [2.0 * scores.output_bytes]


class Speech(nn.Module):
    """One-dimensional convolutions: strided, dilated, grouped, and a transposed one."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv1d(2, 8, 5, stride=2, padding=2)
        self.norm = nn.BatchNorm1d(8)
        self.dilated = nn.Conv1d(8, 8, 3, padding="same", dilation=4, groups=2)
        self.up = nn.ConvTranspose1d(8, 4, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.dilated(F.relu(self.norm(self.stem(x)))))


@pytest.mark.parametrize("trace", [trace_by_export, trace_by_fx, trace_by_hooks])
def test_conv1d_is_planned_as_images_of_height_one(trace: Callable[[nn.Module, Tensor], Trace]) -> None:
    captured = capture(Speech(), torch.randn(BATCH, 2, 40))
    assert layers_of(captured) == {
        "stem": Problem(
            op="conv2d", n=BATCH, c_in=2, c_out=8, h_in=1, w_in=40, kernel=(1, 5), stride=(1, 2), padding=(0, 2)
        ),
        "dilated": Problem(
            op="conv2d",
            n=BATCH,
            c_in=8,
            c_out=8,
            h_in=1,
            w_in=20,
            kernel=(1, 3),
            padding=(0, 4),
            dilation=(1, 4),
            groups=2,
        ),
    }
    ((name, reason),) = [(layer.name, layer.reason) for layer in captured.skipped]
    assert name == "up"
    assert "no sparse kernel" in reason
    names = [each.operation for each in trace(Speech().eval(), torch.randn(BATCH, 2, 40)) if each.weight_bytes]
    assert names == ["conv1d", "conv1d", "convtranspose1d"]
