from __future__ import annotations

from dataclasses import replace

import torch

from sparseplan.trainer.batches import derived_seed, steps_per_epoch, training_batches
from sparseplan.trainer.data import DataSplits, Split

CPU = torch.device("cpu")


def numbered(digits: DataSplits, count: int) -> DataSplits:
    """Images that carry their own number, to see which ones a batch holds."""
    values = torch.arange(count, dtype=torch.float32).view(-1, 1, 1, 1)
    split = Split(images=values, labels=torch.arange(count) % 10)
    return replace(digits, train=split, mean=(0.0,), std=(1.0,), augment="none")


def numbers(data: DataSplits, *, batch_size: int, seed: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    batches = training_batches(data, batch_size=batch_size, generator=generator, device=CPU)
    return [images.flatten().int().tolist() for images, _ in batches]


def test_an_epoch_shows_each_image_at_most_once_in_full_batches(digits: DataSplits) -> None:
    batches = numbers(numbered(digits, 103), batch_size=10, seed=0)
    assert [len(batch) for batch in batches] == [10] * 10
    assert len({number for batch in batches for number in batch}) == 100


def test_images_keep_their_labels(digits: DataSplits) -> None:
    data = numbered(digits, 50)
    for images, labels in training_batches(data, batch_size=8, generator=torch.Generator().manual_seed(3), device=CPU):
        assert torch.equal(images.flatten().long() % 10, labels)


def test_the_order_follows_from_the_seed(digits: DataSplits) -> None:
    data = numbered(digits, 64)
    assert numbers(data, batch_size=8, seed=1) == numbers(data, batch_size=8, seed=1)
    assert numbers(data, batch_size=8, seed=1) != numbers(data, batch_size=8, seed=2)


def test_fewer_images_than_a_batch_are_one_batch(digits: DataSplits) -> None:
    data = numbered(digits, 5)
    assert steps_per_epoch(data, 128) == 1
    assert sorted(numbers(data, batch_size=128, seed=0)[0]) == [0, 1, 2, 3, 4]


def test_seeds_differ_by_epoch_and_stream() -> None:
    seeds = {derived_seed(seed, epoch, stream=stream) for seed in range(3) for epoch in range(4) for stream in range(2)}
    assert len(seeds) == 24


def test_uint8_images_are_normalised(digits: DataSplits) -> None:
    pixels = digits.normalise(torch.tensor([[[[0, 255]]]], dtype=torch.uint8))
    torch.testing.assert_close(pixels.flatten(), torch.tensor([-0.3 / 0.38, 0.7 / 0.38]))
