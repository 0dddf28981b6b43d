"""The recipe: optimisers, moving average, distillation, accumulation, AutoAugment, and resuming with all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from scipy.special import log_softmax, softmax
from torch import nn

from sparseplan.kernels.errors import InputError
from sparseplan.kernels.pattern import parse_pattern
from sparseplan.trainer import Interrupted
from sparseplan.trainer.assignment import Assignment, LayerSparsity
from sparseplan.trainer.auto_augment import POLICY, _apply, auto_augment
from sparseplan.trainer.data import DataSplits, Split
from sparseplan.trainer.distil import distillation_loss
from sparseplan.trainer.ema import MovingAverage
from sparseplan.trainer.learner import Learner
from sparseplan.trainer.loop import train
from sparseplan.trainer.migrations import state_to_2
from sparseplan.trainer.schema import TrainConfig, make_config
from sparseplan.trainer.store import RunFolder

MakeNet = Callable[..., nn.Module]
HERE = Path(__file__).parent


def assign(**layers: tuple[str, float]) -> Assignment:
    return tuple(
        LayerSparsity(name=name, pattern=parse_pattern(pattern), sparsity=sparsity)
        for name, (pattern, sparsity) in layers.items()
    )


EVERY_KIND = assign(conv2=("filter+shape", 0.75), fc1=("2:4", 0.5), fc2=("unstructured", 0.5))
ALL_ON = TrainConfig(
    epochs=3,
    batch_size=64,
    grad_accumulation=2,
    optimizer="adamw",
    learning_rate=2e-3,
    weight_decay=0.05,
    clip_grad=1.0,
    schedule="step",
    decay_epochs=2.0,
    label_smoothing=0.1,
    distillation=0.5,
    auto_augment=True,
    ema_decay=0.9,
    prune_frac=0.67,
)


@pytest.fixture(scope="module")
def few(digits: DataSplits) -> DataSplits:
    """A fourth of the digits, padded to the size that AutoAugment's shifts make sense at."""

    def part(split: Split) -> Split:
        return Split(images=split.images[:320], labels=split.labels[:320])

    return replace(digits, train=part(digits.train), validation=part(digits.validation), augment="crop_flip")


@pytest.fixture(scope="module")
def all_on(few: DataSplits, make_net: MakeNet, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = RunFolder(tmp_path_factory.mktemp("all_on"))
    train(make_net(), few, EVERY_KIND, config=ALL_ON, run_dir=folder.path)
    return folder


def stop_at(stage: str) -> Callable[[str, float, float], None]:
    def progress(name: str, done: float, total: float) -> None:
        if name == stage:
            raise KeyboardInterrupt

    return progress


@pytest.mark.parametrize("finished", [0, 1, 2])
def test_everything_at_once_resumes_bit_for_bit(
    few: DataSplits, make_net: MakeNet, tmp_path: Path, all_on: RunFolder, finished: int
) -> None:
    stop = stop_at(f"training epoch {finished + 1} of 3")
    with pytest.raises(Interrupted):
        train(make_net(), few, EVERY_KIND, config=ALL_ON, run_dir=tmp_path, progress=stop)
    torch.manual_seed(99)
    train(make_net(5), few, EVERY_KIND, config=ALL_ON, run_dir=tmp_path, resume=True)
    for name in ("planned_weights", "last_checkpoint"):
        ours, theirs = load_file(getattr(RunFolder(tmp_path), name)), load_file(getattr(all_on, name))
        assert ours.keys() == theirs.keys()
        assert [key for key in theirs if not torch.equal(ours[key], theirs[key])] == []


def test_masked_weights_leak_nowhere(all_on: RunFolder) -> None:
    """Not through AdamW's moments, weight decay, accumulation or the moving average."""
    checkpoint = all_on.load_checkpoint()
    assert checkpoint.state.regulariser.final
    for layer in EVERY_KIND:
        name, gone = f"{layer.name}.weight", ~checkpoint.masks[layer.name]
        assert float(gone.double().mean()) == pytest.approx(layer.sparsity, abs=1e-3)
        kept_by = [checkpoint.model[name], checkpoint.average[name]]
        kept_by += [checkpoint.optimizer[f"{key}/{name}"] for key in ("exp_avg", "exp_avg_sq")]
        assert all((tensor[gone] == 0).all() for tensor in kept_by)
        assert (load_file(all_on.planned_weights)[name][gone] == 0).all()


def test_accumulated_parts_make_the_step_of_the_whole_batch(few: DataSplits, tmp_path: Path) -> None:
    weights = []
    for parts in (1, 3):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
        config = TrainConfig(epochs=1, batch_size=64, grad_accumulation=parts, clip_grad=0.5)
        learner = Learner(net, few, assignment=(), config=config)
        learner.run_epoch(1, report=lambda *_: None)
        weights.append(net[1].weight.detach())
    torch.testing.assert_close(weights[0], weights[1], atol=1e-6, rtol=1e-5)


def test_a_clipped_gradient_has_at_most_the_norm_asked_for(few: DataSplits) -> None:
    moved = []
    for clip in (0.0, 1e-3):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        before = nn.utils.parameters_to_vector(net.parameters()).detach().clone()
        config = TrainConfig(
            epochs=1, batch_size=320, momentum=0.0, weight_decay=0.0, clip_grad=clip, learning_rate=1, warmup_epochs=0
        )
        Learner(net, few, assignment=(), config=config).run_epoch(1, report=lambda *_: None)
        moved.append(float((nn.utils.parameters_to_vector(net.parameters()).detach() - before).norm()))
    assert moved[1] == pytest.approx(1e-3, rel=1e-3)
    assert moved[0] > 0.1


def test_the_moving_average_is_its_formula() -> None:
    net = nn.Linear(3, 2)
    average = MovingAverage(net, decay=0.5)
    expected = net.weight.detach().clone()
    for update in range(1, 6):
        net.weight.data.normal_()
        average.update({})
        decay = min(0.5, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * net.weight.detach()
    torch.testing.assert_close(average.tensors()["weight"], expected)
    live = net.weight.detach().clone()
    average.swap()
    torch.testing.assert_close(net.weight.detach(), expected)
    average.swap()
    assert torch.equal(net.weight.detach(), live)


def test_the_distillation_loss_is_hintons() -> None:
    generator = torch.Generator().manual_seed(0)
    outputs, taught = (torch.randn(5, 7, generator=generator, dtype=torch.float64) for _ in range(2))
    p, log_q = softmax(taught.numpy() / 3.0, axis=1), log_softmax(outputs.numpy() / 3.0, axis=1)
    expected = 9.0 * float((p * (np.log(p) - log_q)).sum(axis=1).mean())
    assert float(distillation_loss(outputs, taught, temperature=3.0)) == pytest.approx(expected, rel=1e-6)
    assert float(distillation_loss(taught, taught, temperature=3.0)) == pytest.approx(0.0, abs=1e-6)


def test_distillation_follows_the_dense_model_and_not_the_labels(few: DataSplits, make_net: MakeNet) -> None:
    """With wrong labels and all of the loss from the teacher, the student still does what the teacher does."""
    wrong = replace(few, train=Split(images=few.train.images, labels=(few.train.labels + 1) % 10))
    teacher, student = make_net(1).eval(), make_net(2)
    images = few.normalise(few.validation.images)

    def distance() -> float:
        with torch.no_grad():
            return float(distillation_loss(student.eval()(images), teacher(images), temperature=4.0))

    before = distance()
    config = TrainConfig(epochs=2, batch_size=32, distillation=1.0, learning_rate=0.02)
    learner = Learner(student, wrong, assignment=(), config=config, teacher=teacher)
    for epoch in (1, 2):
        learner.run_epoch(epoch, report=lambda *_: None)
    assert distance() < 0.5 * before


@pytest.mark.parametrize("channels", [1, 3])
def test_auto_augment_follows_from_its_generator_and_keeps_the_form(channels: int) -> None:
    images = torch.randint(256, (40, channels, 12, 9), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = [auto_augment(images, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert found[0].shape == images.shape
    assert found[0].dtype == torch.uint8
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    part = auto_augment(images, generator=torch.Generator().manual_seed(1), part=slice(10, 20))
    assert torch.equal(part, found[0][10:20])


def test_the_policy_is_cubuks() -> None:
    assert len(POLICY) == 25
    assert all(0.0 <= odds <= 1.0 and 0 <= level <= 9 for steps in POLICY for _, odds, level in steps)
    grey = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    assert np.array(_apply(grey, "invert", 0.0, 1)).tolist() == (255 - np.array(grey)).tolist()
    assert np.array(_apply(grey, "solarize", 1.0, 1)).tolist() == (255 - np.array(grey)).tolist()
    assert np.array(_apply(grey, "posterize", 1.0, 1)).tolist() == (np.array(grey) & 0xF0).tolist()
    moved = np.array(_apply(grey, "translate_x", 1.0, 1))
    assert np.array_equal(moved[:, :9], np.array(grey)[:, 7:])
    assert not moved[:, 9:].any()
    for name in {name for steps in POLICY for name, _, _ in steps}:
        assert _apply(grey, name, 0.5, -1).size == grey.size


def test_auto_augment_refuses_floats() -> None:
    with pytest.raises(InputError, match=r"needs uint8 images.*float32.*without --auto-augment"):
        auto_augment(torch.zeros(2, 3, 8, 8), generator=torch.Generator())


def test_a_history_of_version_1_is_read() -> None:
    folder = RunFolder(HERE)
    text = (HERE / "golden_training_v1.json").read_text()
    assert '"schema_version": 1' in text

    class Golden(RunFolder):
        history = HERE / "golden_training_v1.json"
        last_checkpoint = HERE / "golden_checkpoint_v1.safetensors"

    history = Golden(folder.path).load_history()
    assert history.schema_version == 2
    assert history.config.nm == "asp"
    assert history.epochs[0].sparsity == {"0": 0.5}
    checkpoint = Golden(folder.path).load_checkpoint()
    assert checkpoint.state.regulariser.final
    assert set(checkpoint.optimizer) == {f"momentum_buffer/{n}" for n in ("0.weight", "0.bias", "3.weight", "3.bias")}
    assert checkpoint.masks["0"].sum() == 18


def test_a_checkpoint_of_version_1_says_how_far_pruning_was() -> None:
    config = TrainConfig(epochs=8, batch_size=10).model_dump()
    content = {"schema_version": 1, "epoch": 3, "config": config, "train_images": 105}
    assert state_to_2(content)["regulariser"] == {"steps": 30, "updated": 30, "final": False}
    assert state_to_2(content | {"epoch": 4})["regulariser"]["final"]


def test_an_unknown_option_is_named() -> None:
    with pytest.raises(InputError, match=r"option learning_rte: got 0\.1.*the options are epochs"):
        make_config({"epochs": 1, "learning_rte": 0.1})
    with pytest.raises(InputError, match=r"option optimizer: got 'adam'.*sgd"):
        make_config({"epochs": 1, "optimizer": "adam"})
