"""Every network of the zoo: its size, its names, and that it runs, traces and exports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from sparseplan.zoo import ZOO

PARAMETERS = {
    # Own over-wide network: 9*(1*64 + 64*128 + 128*256 + 256*256) + 2*(64+128+256+256) + 256*10 + 10.
    "digits_wide": 963_018,
    # Caffe's models.
    "lenet": 431_080,
    "convnet": 89_706,
    "alexnet": 60_965_224,
    "googlenet": 6_998_552,
    # He et al., table 6 (0.27 M ... 0.85 M).
    "resnet20": 269_722,
    "resnet32": 464_154,
    "resnet44": 658_586,
    "resnet56": 853_018,
    # torchvision's and timm's documentation.
    "resnet18": 11_689_512,
    "resnet50": 25_557_032,
    "mobilenet_v2": 3_504_872,
    "vit_small": 22_050_664,
    # transformers' BertForSequenceClassification with 2 labels, and GPT2LMHeadModel.
    "bert_base": 109_483_778,
    "gpt2_small": 124_439_808,
}
STATE_ENTRIES = {"resnet18": 122, "resnet50": 320, "mobilenet_v2": 314, "vit_small": 152}
"""Lengths of the state dicts of torchvision and timm."""
SMALL = ("digits_wide", "lenet", "convnet", "resnet20", "resnet32", "resnet44", "resnet56")
TEXT = ("bert_base", "gpt2_small")
IMAGES = tuple(name for name in ZOO if name not in TEXT)
BIG = tuple(name for name in IMAGES if name not in SMALL)
ONE_A_FAMILY = ("digits_wide", "lenet", "convnet", "resnet20")
"""The small networks that differ in more than depth."""


def on_meta(name: str, **options: int) -> nn.Module:
    with torch.device("meta"):
        return ZOO[name](**options).eval()


def seeded(name: str) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return ZOO[name]().eval()


def image(name: str, count: int = 2) -> torch.Tensor:
    return torch.randn(count, *ZOO[name].input_shape, generator=torch.Generator().manual_seed(1))


def test_parameters_are_known_for_every_network() -> None:
    assert set(PARAMETERS) == set(ZOO)


@pytest.mark.parametrize("name", ZOO)
def test_parameter_count(name: str) -> None:
    assert sum(parameter.numel() for parameter in on_meta(name).parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("name", IMAGES)
def test_output_has_one_row_an_image_and_one_column_a_class(name: str) -> None:
    default = on_meta(name)(torch.empty(2, *ZOO[name].input_shape, device="meta"))
    channels, height, width = ZOO[name].input_shape
    other = on_meta(name, classes=7, in_channels=channels + 1)(
        torch.empty(3, channels + 1, height, width, device="meta")
    )

    assert default.shape == (2, 1000 if name in BIG else 10)
    assert other.shape == (3, 7)


@pytest.mark.parametrize("name", ONE_A_FAMILY)
def test_traced_and_exported_networks_compute_the_same(name: str) -> None:
    network, x = seeded(name), image(name)
    with torch.no_grad():
        expected = network(x)
        traced = torch.fx.symbolic_trace(network)(x)
        exported = torch.export.export(network, (x,)).module()(x)

    assert torch.isfinite(expected).all()
    torch.testing.assert_close(traced, expected)
    torch.testing.assert_close(exported, expected)


@pytest.mark.parametrize("name", BIG)
def test_big_networks_trace(name: str) -> None:
    traced = torch.fx.symbolic_trace(on_meta(name))
    assert traced(torch.empty(1, *ZOO[name].input_shape, device="meta")).shape == (1, 1000)


@pytest.mark.parametrize("name", ONE_A_FAMILY)
def test_gradients_reach_every_parameter(name: str) -> None:
    network = seeded(name).train()
    network(image(name)).square().sum().backward()
    for parameter_name, parameter in network.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.abs().sum() > 0, parameter_name


@pytest.mark.parametrize(("name", "shape"), [("bert_base", (3, 2)), ("gpt2_small", (3, 128, 50_257))])
def test_networks_of_text_take_token_ids_and_trace(name: str, shape: tuple[int, ...]) -> None:
    network, ids = on_meta(name), torch.empty(3, *ZOO[name].input_shape, dtype=torch.int64, device="meta")
    assert network(ids).shape == torch.fx.symbolic_trace(network)(ids).shape == shape


def test_a_decoder_never_looks_ahead() -> None:
    from sparseplan.zoo.gpt2 import DecoderBlock

    torch.manual_seed(0)
    block, x = DecoderBlock(8, heads=2).eval(), torch.randn(1, 5, 8)
    changed = x.clone()
    changed[:, 3:] += 1.0
    torch.testing.assert_close(block(changed)[:, :3], block(x)[:, :3])


@pytest.mark.parametrize(("name", "entries"), STATE_ENTRIES.items())
def test_state_dicts_are_as_long_as_those_of_their_library(name: str, entries: int) -> None:
    assert len(on_meta(name).state_dict()) == entries


@pytest.mark.parametrize(
    ("name", "entry", "shape"),
    [
        ("resnet18", "layer2.0.downsample.0.weight", (128, 64, 1, 1)),
        ("resnet50", "layer4.0.conv2.weight", (512, 512, 3, 3)),
        ("resnet50", "layer1.0.downsample.1.running_var", (256,)),
        ("resnet50", "fc.weight", (1000, 2048)),
        ("mobilenet_v2", "features.0.0.weight", (32, 3, 3, 3)),
        ("mobilenet_v2", "features.1.conv.0.0.weight", (32, 1, 3, 3)),
        ("mobilenet_v2", "features.1.conv.1.weight", (16, 32, 1, 1)),
        ("mobilenet_v2", "features.17.conv.3.bias", (320,)),
        ("mobilenet_v2", "features.18.1.running_mean", (1280,)),
        ("mobilenet_v2", "classifier.1.weight", (1000, 1280)),
        ("vit_small", "cls_token", (1, 1, 384)),
        ("vit_small", "pos_embed", (1, 197, 384)),
        ("vit_small", "patch_embed.proj.weight", (384, 3, 16, 16)),
        ("vit_small", "blocks.11.attn.qkv.weight", (1152, 384)),
        ("vit_small", "blocks.0.mlp.fc2.bias", (384,)),
        ("vit_small", "head.weight", (1000, 384)),
        ("bert_base", "bert.encoder.layer.11.attention.self.query.weight", (768, 768)),
        ("bert_base", "bert.encoder.layer.0.output.LayerNorm.bias", (768,)),
        ("gpt2_small", "h.11.attn.c_attn.weight", (2304, 768)),
        ("alexnet", "conv2.weight", (256, 48, 5, 5)),
        ("alexnet", "conv3.weight", (384, 256, 3, 3)),
        ("alexnet", "conv4.weight", (384, 192, 3, 3)),
        ("alexnet", "conv5.weight", (256, 192, 3, 3)),
        ("googlenet", "inception.4a.five.conv.weight", (48, 16, 5, 5)),
        ("resnet56", "layer3.8.conv2.weight", (64, 64, 3, 3)),
    ],
)
def test_names_and_shapes_of_published_weights(name: str, entry: str, shape: tuple[int, ...]) -> None:
    assert on_meta(name).state_dict()[entry].shape == shape


def test_alexnet_layers_see_the_input_sizes_of_the_paper() -> None:
    network = on_meta("alexnet")
    sizes: dict[str, int] = {}
    for name, module in network.named_children():
        if isinstance(module, nn.Conv2d):
            module.register_forward_pre_hook(lambda _, inputs, name=name: sizes.update({name: inputs[0].shape[-1]}))
    network(torch.empty(1, 3, 227, 227, device="meta"))

    assert sizes == {"conv1": 227, "conv2": 27, "conv3": 13, "conv4": 13, "conv5": 13}


def test_option_a_shortcut_takes_every_second_pixel_between_zero_channels() -> None:
    from sparseplan.zoo.resnet_cifar import PaddedShortcut

    x = torch.arange(2.0 * 4 * 4).view(1, 2, 4, 4) + 1
    y = PaddedShortcut(2, 4)(x)

    assert y.shape == (1, 4, 2, 2)
    assert torch.equal(y[:, 1:3], x[:, :, ::2, ::2])
    assert not y[:, [0, 3]].any()


def test_vit_attention_equals_the_written_out_formula() -> None:
    from sparseplan.zoo.vit import Attention

    torch.manual_seed(0)
    attention = Attention(8, heads=2).double()
    x = torch.randn(3, 5, 8, dtype=torch.float64)
    q, k, v = (part.view(3, 5, 2, 4).transpose(1, 2) for part in attention.qkv(x).split(8, dim=2))
    weights = (q @ k.transpose(2, 3) / 4**0.5).softmax(dim=3)
    expected = attention.proj((weights @ v).transpose(1, 2).reshape(3, 5, 8))

    torch.testing.assert_close(attention(x), expected)


def test_the_demo_network_has_the_stated_work() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        seeded("digits_wide")(image("digits_wide", 1))
    assert counter.get_total_flops() == pytest.approx(66.2e6, rel=2e-3)


def test_listing_the_zoo_loads_no_torch() -> None:
    program = (
        "import sys; from sparseplan.zoo import ZOO; import sparseplan.model_spec, sparseplan.data_spec; "
        "assert len(ZOO) > 10; sys.exit('torch' in sys.modules)"
    )
    finished = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True, cwd=Path(__file__).parent
    )
    assert finished.returncode == 0, finished.stderr
