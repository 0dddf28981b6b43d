"""AutoAugment's policy for CIFAR-10, on batches of uint8 images; each operation is Pillow's.

References
----------
Cubuk et al., "AutoAugment: learning augmentation policies from data", CVPR 2019, table 7 (the 25 sub-policies) and
table 6 (the range of each operation's magnitudes, ten levels).
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from ..kernels.errors import InputError

_Step = tuple[str, float, int]
"""Operation, probability, level of its magnitude (0 to 9)."""

POLICY: tuple[tuple[_Step, _Step], ...] = (
    (("invert", 0.1, 7), ("contrast", 0.2, 6)),
    (("rotate", 0.7, 2), ("translate_x", 0.3, 9)),
    (("sharpness", 0.8, 1), ("sharpness", 0.9, 3)),
    (("shear_y", 0.5, 8), ("translate_y", 0.7, 9)),
    (("autocontrast", 0.5, 8), ("equalize", 0.9, 2)),
    (("shear_y", 0.2, 7), ("posterize", 0.3, 7)),
    (("color", 0.4, 3), ("brightness", 0.6, 7)),
    (("sharpness", 0.3, 9), ("brightness", 0.7, 9)),
    (("equalize", 0.6, 5), ("equalize", 0.5, 1)),
    (("contrast", 0.6, 7), ("sharpness", 0.6, 5)),
    (("color", 0.7, 7), ("translate_x", 0.5, 8)),
    (("equalize", 0.3, 7), ("autocontrast", 0.4, 8)),
    (("translate_y", 0.4, 3), ("sharpness", 0.2, 6)),
    (("brightness", 0.9, 6), ("color", 0.2, 8)),
    (("solarize", 0.5, 2), ("invert", 0.0, 3)),
    (("equalize", 0.2, 0), ("autocontrast", 0.6, 0)),
    (("equalize", 0.2, 8), ("equalize", 0.6, 4)),
    (("color", 0.9, 9), ("equalize", 0.6, 6)),
    (("autocontrast", 0.8, 4), ("solarize", 0.2, 8)),
    (("brightness", 0.1, 3), ("color", 0.7, 0)),
    (("solarize", 0.4, 5), ("autocontrast", 0.9, 3)),
    (("translate_y", 0.9, 9), ("translate_y", 0.7, 9)),
    (("autocontrast", 0.9, 2), ("solarize", 0.8, 3)),
    (("equalize", 0.8, 8), ("invert", 0.1, 3)),
    (("translate_y", 0.7, 9), ("autocontrast", 0.9, 1)),
)
_LEVELS = 9.0
_SHEAR, _ROTATE_DEGREES, _TRANSLATE_FRAC, _ENHANCE = 0.3, 30.0, 150.0 / 331.0, 0.9
"""Largest magnitudes; the paper translates by up to 150 of 331 pixels."""


def auto_augment(images: Tensor, *, generator: torch.Generator, part: slice = slice(None)) -> Tensor:
    """One random sub-policy on each image.

    Parameters
    ----------
    images : Tensor
        uint8 [N, C, H, W], one or three channels.
    part : slice
        Which images to give back; the draws are those of the whole batch, whoever computes which part.

    Raises
    ------
    InputError
        If the images are no uint8, or have another number of channels.
    """
    if images.dtype != torch.uint8 or images.shape[1] not in (1, 3):
        raise InputError(
            f"AutoAugment needs uint8 images of 1 or 3 channels, got {str(images.dtype).removeprefix('torch.')} of "
            f"{images.shape[1]}; train without --auto-augment"
        )
    count = len(images)
    policies = torch.randint(len(POLICY), (count,), generator=generator).tolist()
    chances = torch.rand((count, 2), generator=generator).tolist()
    signs = (torch.randint(2, (count, 2), generator=generator) * 2 - 1).tolist()
    changed = [
        _changed(images[index], POLICY[policies[index]], chances[index], signs[index]) for index in range(count)[part]
    ]
    return torch.stack(changed) if changed else images[part]


def _changed(image: Tensor, steps: tuple[_Step, _Step], chances: list[float], signs: list[int]) -> Tensor:
    due = [
        (name, level, sign)
        for (name, odds, level), chance, sign in zip(steps, chances, signs, strict=True)
        if chance < odds
    ]
    if not due:
        return image
    pixels = image.permute(1, 2, 0).numpy()
    picture = Image.fromarray(pixels if len(image) == 3 else pixels[:, :, 0])
    for name, level, sign in due:
        picture = _apply(picture, name, level / _LEVELS, sign)
    found = torch.from_numpy(np.array(picture))
    return found.permute(2, 0, 1) if found.dim() == 3 else found[None]


def _apply(picture: Image.Image, name: str, share: float, sign: int) -> Image.Image:
    signed = share * sign
    match name:
        case "shear_x":
            return _affine(picture, (1.0, _SHEAR * signed, 0.0, 0.0, 1.0, 0.0))
        case "shear_y":
            return _affine(picture, (1.0, 0.0, 0.0, _SHEAR * signed, 1.0, 0.0))
        case "translate_x":
            return _affine(picture, (1.0, 0.0, float(int(_TRANSLATE_FRAC * picture.width * signed)), 0.0, 1.0, 0.0))
        case "translate_y":
            return _affine(picture, (1.0, 0.0, 0.0, 0.0, 1.0, float(int(_TRANSLATE_FRAC * picture.height * signed))))
        case "rotate":
            return picture.rotate(_ROTATE_DEGREES * signed)
        case "brightness":
            return ImageEnhance.Brightness(picture).enhance(1.0 + _ENHANCE * signed)
        case "color":
            return ImageEnhance.Color(picture).enhance(1.0 + _ENHANCE * signed)
        case "contrast":
            return ImageEnhance.Contrast(picture).enhance(1.0 + _ENHANCE * signed)
        case "sharpness":
            return ImageEnhance.Sharpness(picture).enhance(1.0 + _ENHANCE * signed)
        case "posterize":
            return ImageOps.posterize(picture, 8 - round(4.0 * share))
        case "solarize":
            return ImageOps.solarize(picture, round(255.0 * (1.0 - share)))
        case "autocontrast":
            return ImageOps.autocontrast(picture)
        case "equalize":
            return ImageOps.equalize(picture)
        case "invert":
            return ImageOps.invert(picture)
    raise AssertionError(name)


def _affine(picture: Image.Image, matrix: tuple[float, ...]) -> Image.Image:
    return picture.transform(picture.size, Image.Transform.AFFINE, matrix)
