from __future__ import annotations

import pytest
import torch

from sparseplan.trainer.augment import augment


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(n: int) -> torch.Tensor:
    return torch.randint(1, 256, (n, 3, 9, 7), generator=generator(1), dtype=torch.uint8)


def all_variants(image: torch.Tensor, margin: int, *, flips: bool) -> list[torch.Tensor]:
    padded = torch.nn.functional.pad(image, [margin] * 4)
    height, width = image.shape[1:]
    crops = [
        padded[:, top : top + height, left : left + width]
        for top in range(2 * margin + 1)
        for left in range(2 * margin + 1)
    ]
    return crops + [crop.flip(2) for crop in crops] if flips else crops


@pytest.mark.parametrize(("kind", "margin", "flips"), [("shift", 1, False), ("crop_flip", 4, True)])
def test_every_result_is_one_of_the_variants_and_all_occur(kind: str, margin: int, flips: bool) -> None:
    image = images(1)
    drawn = augment(image.expand(4000, -1, -1, -1), kind, generator=generator())
    assert drawn.shape == (4000, 3, 9, 7)
    assert drawn.dtype == torch.uint8
    variants = {variant.numpy().tobytes() for variant in all_variants(image[0], margin, flips=flips)}
    assert {variant.contiguous().numpy().tobytes() for variant in drawn} == variants


def test_the_generator_decides_everything() -> None:
    batch = images(32)
    same = [augment(batch, "crop_flip", generator=generator(seed)) for seed in (5, 5, 6)]
    assert torch.equal(same[0], same[1])
    assert not torch.equal(same[0], same[2])


def test_none_changes_nothing() -> None:
    batch = images(4)
    assert torch.equal(augment(batch, "none", generator=generator()), batch)
