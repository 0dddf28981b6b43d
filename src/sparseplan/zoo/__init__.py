"""The zoo: own definitions of the networks of the papers, random weights, nothing downloaded.

The list is readable without torch; a network's file is imported when the network is built.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True, kw_only=True)
class ZooEntry:
    """A network of the zoo; calling it builds the network.

    Attributes
    ----------
    family : str
        File of this package that defines it; the function there has the network's name.
    input_shape : tuple of int
        [C, H, W] of the image, or [T] of the token ids, that the network is made for.
    about : str
        What it is, in one line.
    """

    name: str
    family: str
    input_shape: tuple[int, ...]
    about: str

    def __call__(self, *, classes: int | None = None, in_channels: int | None = None) -> nn.Module:
        """Build the network with random weights drawn from torch's current generator.

        Parameters
        ----------
        classes : int, optional
            Width of the output; that of the paper by default.
        in_channels : int, optional
            Channels of the input; those of `input_shape` by default.
        """
        build = getattr(import_module(f".{self.family}", __package__), self.name)
        given = {"classes": classes, "in_channels": in_channels}
        network: nn.Module = build(**{option: value for option, value in given.items() if value is not None})
        return network


def _entry(name: str, family: str, input_shape: tuple[int, ...], about: str) -> ZooEntry:
    return ZooEntry(name=name, family=family, input_shape=input_shape, about=about)


_ENTRIES = (
    _entry("digits_wide", "digits_wide", (1, 8, 8), "four 3x3 convolutions, far too wide for 8x8 digits (the demo)"),
    _entry("lenet", "lenet", (1, 28, 28), "Caffe's LeNet, 20 and 50 filters of 5x5 (SSL)"),
    _entry("convnet", "convnet", (3, 32, 32), "Caffe's CIFAR-10 ConvNet, three layers of 5x5 (SSL)"),
    _entry("alexnet", "alexnet", (3, 227, 227), "CaffeNet: AlexNet with its groups (SSL, GSL)"),
    _entry("googlenet", "googlenet", (3, 224, 224), "GoogLeNet with 5x5 branches, without auxiliary heads (GSL)"),
    _entry("resnet20", "resnet_cifar", (3, 32, 32), "CIFAR ResNet, shortcuts without weights (SSL, SAS)"),
    _entry("resnet32", "resnet_cifar", (3, 32, 32), "CIFAR ResNet, shortcuts without weights (SSL)"),
    _entry("resnet44", "resnet_cifar", (3, 32, 32), "CIFAR ResNet, shortcuts without weights"),
    _entry("resnet56", "resnet_cifar", (3, 32, 32), "CIFAR ResNet, shortcuts without weights"),
    _entry("resnet18", "resnet", (3, 224, 224), "ImageNet ResNet of basic blocks, torchvision's names"),
    _entry("resnet50", "resnet", (3, 224, 224), "ImageNet ResNet of bottlenecks, torchvision's names"),
    _entry("mobilenet_v2", "mobilenet_v2", (3, 224, 224), "inverted residuals, depth-wise; torchvision's names"),
    _entry("vit_small", "vit", (3, 224, 224), "vision transformer S/16, timm's names"),
    _entry("bert_base", "bert", (128,), "BERT-base with a classifier, on token ids; names of transformers"),
    _entry("gpt2_small", "gpt2", (128,), "GPT-2 of 124 million parameters: decoder blocks, on token ids"),
)

ZOO: Mapping[str, ZooEntry] = MappingProxyType({entry.name: entry for entry in _ENTRIES})
"""Every network by name."""
