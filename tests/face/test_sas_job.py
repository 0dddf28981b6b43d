"""The whole way of a network under SAS: plan, explain, train, bench, report, export, load."""

from pathlib import Path

import pytest
from finished_job import check_exports, finished_job
from safetensors.torch import load_file

import sparseplan
from sparseplan.cli import main
from sparseplan.kernels.cpu import detect_machine
from sparseplan.kernels.errors import InputError
from sparseplan.kernels.sas import SlotLayer
from sparseplan.model_spec import load_model
from sparseplan.planner.schema import Plan
from sparseplan.runtime.schema import Measurements
from sparseplan.runtime.swapped_layer import SwappedLayer
from sparseplan.trainer.sas import network_of
from sparseplan.trainer.store import load_weights

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
UNDER_SAS = {"3", "6"}
"""The convolutions behind a ReLU; the first layer and the one behind the pooling are not."""


@pytest.fixture(scope="module")
def run(user_file: Path, profile_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run folder."""
    folder = tmp_path_factory.mktemp("sas")
    run = finished_job(folder, user_file, profile_path, "--sas", "2")
    assert main(["report", str(run)]) == 0
    return run


def test_the_plan_says_what_it_costs(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = Plan.model_validate_json((run / "plan.json").read_text())
    chosen = {layer.name: layer.chosen for layer in plan.layers}
    assert {name for name, each in chosen.items() if each.pattern == "sas:1:2"} == UNDER_SAS
    assert {each.pattern for name, each in chosen.items() if name not in UNDER_SAS} == {"dense"}
    totals = plan.totals
    assert totals.planned_time_s.median > 0
    added = 4.0 * (96 * 32 + 96 * 96) * 9
    assert totals.planned_bytes == pytest.approx(totals.dense_bytes + added)
    assert totals.loss_increase == 0.0
    assert main(["explain", str(run / "plan.json")]) == 0
    assert "under SAS, as asked" in capsys.readouterr().out
    assert main(["explain", str(run / "plan.json"), "3"]) == 0
    assert "a plan to a target, in place of --sas" in capsys.readouterr().out


def test_training_starts_from_the_dense_network_and_uses_the_new_slots(run: Path) -> None:
    dense, planned = (load_file(run / f"{name}.safetensors") for name in ("dense", "planned"))
    assert dense["3.weight"].shape == (96, 32, 3, 3)
    assert planned["3.weight"].shape == (96, 64, 3, 3)
    assert planned["3.weight"][:, 1::2].any()
    assert planned["0.weight"].shape == dense["0.weight"].shape


def test_bench_runs_the_kernels_of_sas(run: Path) -> None:
    measured = Measurements.model_validate_json((run / "measurements.json").read_text())
    assert {layer.name for layer in measured.layers} == UNDER_SAS
    assert all("_sas_" in layer.kernel for layer in measured.layers)
    assert not any(layer.reverted for layer in measured.layers)
    assert measured.output_error < 1e-3
    assert all(layer.max_abs_error < 1e-3 for layer in measured.layers)
    assert "by activation sparsification" in (run / "report.html").read_text()


def test_exported_files_compute_what_was_trained(run: Path, tmp_path: Path, user_file: Path) -> None:
    plan = Plan.model_validate_json((run / "plan.json").read_text())
    trained = network_of(load_model(f"{user_file}:model"), plan).eval()
    load_weights(trained, run / "planned.safetensors")
    check_exports(run, tmp_path, trained)
    loaded = sparseplan.load(run)
    assert sum(isinstance(module, SwappedLayer) for module in loaded.modules()) == 2
    assert not any(isinstance(module, SlotLayer) for module in loaded.modules())


def test_a_model_that_was_not_converted_is_refused(run: Path, user_file: Path) -> None:
    plan = Plan.model_validate_json((run / "plan.json").read_text())
    with pytest.raises(InputError, match="under sas:1:2, the model has it dense"):
        sparseplan.compile(load_model(f"{user_file}:model"), plan, machine=detect_machine())


def test_a_target_and_sas_exclude_each_other(
    user_file: Path, profile_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    planned = ["plan", "--model", f"{user_file}:model", "--input", "16,1,8,8", "--profile", str(profile_path)]
    out = ["--out", str(tmp_path / "plan.json")]
    assert main([*planned, "--sas", "2", "--target-speedup", "1.5", *out]) == 2
    assert "give a target or --sas, not both" in capsys.readouterr().err
    assert main([*planned, "--sas", "3", *out]) == 2
    assert "power of two" in capsys.readouterr().err
