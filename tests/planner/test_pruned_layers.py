"""The database of pruned layers: what is in it, that it goes on after an interruption, and what it refuses."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sparseplan.kernels.errors import InputError
from sparseplan.kernels.groups import magnitude_mask
from sparseplan.kernels.pattern import parse_pattern
from sparseplan.planner import pruned_layers
from sparseplan.planner.ablation import WeightChoice
from sparseplan.planner.calibration import Calibration
from sparseplan.planner.layer_weights import layer_weight, replaced
from sparseplan.planner.pruned_layers import prune_layers
from sparseplan.planner.pruned_store import MANIFEST, PrunedStore, StoredLevel, bytes_of

CHOICES = tuple(
    WeightChoice(layer=layer, pattern=pattern, sparsity=sparsity)
    for layer, pattern in (("wide", "unstructured"), ("wide", "block:16x1"), ("grouped", "filter"), ("head", "shape"))
    for sparsity in (0.5, 0.75)
)


@pytest.fixture
def calibration(digits: tuple[Tensor, Tensor]) -> Calibration:
    return Calibration(images=digits[0][1500:1600], labels=digits[1][1500:1600])


def test_layers_are_pruned_and_kept(trained_net: nn.Module, calibration: Calibration, tmp_path: Path) -> None:
    model = copy.deepcopy(trained_net).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    made = prune_layers(model, CHOICES, calibration=calibration, store=PrunedStore(tmp_path / "db"))
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    read = prune_layers(model, CHOICES, calibration=calibration, store=PrunedStore(tmp_path / "db"))
    for choice in CHOICES:
        weight = made.weight(choice)
        assert weight.shape == layer_weight(model, choice.layer).shape
        assert float((weight == 0).double().mean()) == pytest.approx(choice.sparsity, abs=0.01)
        assert torch.equal(read.weight(choice), weight)
        assert torch.equal(read.error(choice), made.error(choice))
    assert float(made.error(CHOICES[0]).sum()) < float(made.error(CHOICES[1]).sum())


@torch.no_grad()
def test_the_network_suffers_less_than_by_magnitude(
    trained_net: nn.Module, calibration: Calibration, tmp_path: Path
) -> None:
    pruned = prune_layers(trained_net, CHOICES, calibration=calibration, store=PrunedStore(tmp_path))
    dense = trained_net(calibration.images)
    changes = []
    for choice in CHOICES:
        weight = layer_weight(trained_net, choice.layer)
        cut = weight * magnitude_mask(weight, parse_pattern(choice.pattern), choice.sparsity)
        for other in (pruned.weight(choice), cut):
            with replaced(trained_net, {choice.layer: other}):
                changes.append(float((trained_net(calibration.images) - dense).square().mean()))
    # What is least is the change of the layer's own output; what becomes of it behind may differ for one or other.
    refitted, by_magnitude = changes[::2], changes[1::2]
    assert sum(new < old for new, old in zip(refitted, by_magnitude, strict=True)) >= len(CHOICES) - 2
    assert sum(refitted) < 0.7 * sum(by_magnitude)


def test_an_interrupted_run_goes_on(
    trained_net: nn.Module, calibration: Calibration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    real = pruned_layers.remove_weights

    def counted(*arguments, **named):  # type: ignore[no-untyped-def]
        calls.append(str(arguments[2]))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments, **named)

    monkeypatch.setattr(pruned_layers, "remove_weights", counted)
    with pytest.raises(KeyboardInterrupt):
        prune_layers(trained_net, CHOICES, calibration=calibration, store=PrunedStore(tmp_path))
    assert len(list(tmp_path.glob("*.safetensors"))) == 2
    prune_layers(trained_net, CHOICES, calibration=calibration, store=PrunedStore(tmp_path))
    assert calls[3:] == ["block:16x1", "unstructured"]
    # Another level of a pattern leaves those that are there.
    more = replace(CHOICES[0], sparsity=0.9)
    found = prune_layers(trained_net, [more], calibration=calibration, store=PrunedStore(tmp_path))
    assert len(calls) == 6
    assert float((found.weight(CHOICES[0]) == 0).double().mean()) == pytest.approx(0.5)
    assert float((found.weight(more) == 0).double().mean()) == pytest.approx(0.9, abs=0.01)


def test_other_weights_or_data_are_refused(trained_net: nn.Module, calibration: Calibration, tmp_path: Path) -> None:
    prune_layers(trained_net, CHOICES[:1], calibration=calibration, store=PrunedStore(tmp_path))
    other = copy.deepcopy(trained_net)
    with torch.no_grad():
        other.get_parameter("head.bias")[0] += 1.0
    with pytest.raises(InputError, match="holds pruned layers of other weights; give another --database"):
        prune_layers(other, CHOICES[:1], calibration=calibration, store=PrunedStore(tmp_path))
    fewer = Calibration(images=calibration.images[:50])
    with pytest.raises(InputError, match="of other weights and other data"):
        prune_layers(other, CHOICES[:1], calibration=fewer, store=PrunedStore(tmp_path))
    content = json.loads((tmp_path / MANIFEST).read_text())
    (tmp_path / MANIFEST).write_text(json.dumps({**content, "schema_version": 9}))
    with pytest.raises(InputError, match="schema version 9"):
        prune_layers(trained_net, CHOICES[:1], calibration=calibration, store=PrunedStore(tmp_path))


def test_a_damaged_file_is_named(trained_net: nn.Module, calibration: Calibration, tmp_path: Path) -> None:
    prune_layers(trained_net, CHOICES[:1], calibration=calibration, store=PrunedStore(tmp_path))
    (path,) = tmp_path.glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match=r"wide--unstructured.safetensors is no file of pruned layers"):
        prune_layers(trained_net, CHOICES[:1], calibration=calibration, store=PrunedStore(tmp_path))


def test_the_size_is_known_before(
    trained_net: nn.Module, calibration: Calibration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prune_layers(trained_net, CHOICES[:2], calibration=calibration, store=PrunedStore(tmp_path))
    (path,) = tmp_path.glob("*.safetensors")
    shape = tuple(layer_weight(trained_net, "wide").shape)
    expected = sum(bytes_of(shape, choice.sparsity) for choice in CHOICES[:2])
    assert path.stat().st_size == pytest.approx(expected, rel=0.2)
    monkeypatch.setattr(pruned_layers, "MOST_STORED_BYTES", 1000)
    with pytest.raises(InputError, match=r"would take .* GB, allowed are 0.0; give fewer --patterns"):
        prune_layers(trained_net, CHOICES, calibration=calibration, store=PrunedStore(tmp_path / "other"))


def test_values_beyond_half_precision_are_kept() -> None:
    weight = torch.tensor([[[[0.0, 1e6, -3.0]]]])
    level = StoredLevel.of(weight, torch.zeros(1))
    assert torch.equal(level.weight((1, 1, 1, 3)), weight)
