"""The whole way of a network with a layer of low rank: plan, tune, train, bench, export, load."""

from pathlib import Path

import pytest
import torch
from finished_job import check_exports, finished_job
from safetensors.torch import load_file

from sparseplan.kernels.errors import UnsupportedError
from sparseplan.kernels.lowrank import ranks_for
from sparseplan.model_spec import load_model
from sparseplan.planner.schema import LayerPlan, Plan
from sparseplan.runtime.closed_loop import pruned
from sparseplan.runtime.schema import Measurements
from sparseplan.trainer.regulariser import PruneOptions, prepare
from sparseplan.trainer.store import load_weights

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")


@pytest.fixture(scope="module")
def run(user_file: Path, profile_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run folder."""
    folder = tmp_path_factory.mktemp("low-rank")
    return finished_job(folder, user_file, profile_path, "--patterns", "lowrank", "--target-speedup", "1.3")


def low_rank_layers(run: Path) -> list[LayerPlan]:
    plan = Plan.model_validate_json((run / "plan.json").read_text())
    return [layer for layer in plan.layers if layer.chosen.pattern == "lowrank"]


def test_the_plan_counts_what_the_factors_take_and_cost(run: Path) -> None:
    plan = Plan.model_validate_json((run / "plan.json").read_text())
    layers = low_rank_layers(run)
    assert layers
    assert all(layer.chosen.time_s.median < layer.dense.time_s.median for layer in layers)
    assert all(layer.chosen.loss_increase > 0.0 for layer in layers)
    saved = sum(layer.chosen.sparsity * layer.full_problem.weight_bytes for layer in layers)
    assert plan.totals.planned_bytes == pytest.approx(plan.totals.dense_bytes - saved)


def test_trained_weights_have_the_rank_of_the_plan(run: Path) -> None:
    dense, planned = (load_file(run / f"{name}.safetensors") for name in ("dense", "planned"))
    assert dense.keys() == planned.keys()
    for layer in low_rank_layers(run):
        weight = planned[f"{layer.name}.weight"]
        _, r_out = ranks_for(layer.full_problem.weight_shape, layer.chosen.sparsity)
        assert torch.linalg.matrix_rank(weight.flatten(1), rtol=1e-5) == r_out
        assert r_out < weight.shape[0]
        assert not torch.allclose(weight, dense[f"{layer.name}.weight"], atol=1e-3)


def test_bench_runs_thin_layers_in_a_row(run: Path) -> None:
    measured = Measurements.model_validate_json((run / "measurements.json").read_text())
    assert {layer.name for layer in measured.layers} == {layer.name for layer in low_rank_layers(run)}
    assert all("_lowrank_" in layer.kernel for layer in measured.layers)
    assert measured.output_error < 1e-3


def test_exported_files_compute_what_was_trained(run: Path, tmp_path: Path, user_file: Path) -> None:
    trained = load_model(f"{user_file}:model").eval()
    load_weights(trained, run / "planned.safetensors")
    check_exports(run, tmp_path, trained)
    weights = sum(layer.full_problem.weight_bytes * layer.chosen.sparsity for layer in low_rank_layers(run))
    size = (run / "planned.safetensors").stat().st_size - (tmp_path / "net.safetensors").stat().st_size
    # The plan lies in the file as well.
    assert size > 0.9 * weights - (run / "plan.json").stat().st_size


def test_before_training_the_loop_measures_weights_of_that_rank(run: Path, user_file: Path) -> None:
    plan = Plan.model_validate_json((run / "plan.json").read_text())
    model = pruned(load_model(f"{user_file}:model"), plan)
    for layer in low_rank_layers(run):
        _, r_out = ranks_for(layer.full_problem.weight_shape, layer.chosen.sparsity)
        weight = model.get_submodule(layer.name).weight
        assert torch.linalg.matrix_rank(weight.detach().flatten(1), rtol=1e-5) == r_out


def test_masks_alone_cannot_hold_a_rank(run: Path, user_file: Path) -> None:
    plan = Plan.model_validate_json((run / "plan.json").read_text())
    model = load_model(f"{user_file}:model")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(UnsupportedError, match="to low rank, which no mask holds"):
        prepare(model, plan, optimizer, options=PruneOptions(prune_steps=1))
