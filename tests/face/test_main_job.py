"""The whole way through the command line: plan, explain, train, bench, report, on a user's own model and data."""

import json
from pathlib import Path

import pytest
from finished_job import check_exports

from sparseplan.cli import main
from sparseplan.commands import bench as bench_command
from sparseplan.commands import tune as tune_command
from sparseplan.planner.schema import Plan
from sparseplan.runtime.schema import Measurements
from sparseplan.runtime.store import load_loop
from sparseplan.trainer.schema import TrainingHistory

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")


@pytest.fixture(scope="module")
def run(user_file: Path, profile_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run folder."""
    folder = tmp_path_factory.mktemp("job")
    plan = folder / "plan.json"
    model, data = f"{user_file}:model", f"{user_file}:data"
    planned = ["plan", "--model", model, "--input", "16,1,8,8", "--profile", str(profile_path), "--data", data]
    assert main([*planned, "--target-speedup", "1.05", "--out", str(plan)]) == 0
    trained = ["train", "--plan", str(plan), "--model", model, "--data", data, "--run", str(folder / "run")]
    assert main([*trained, "--epochs", "2"]) == 0
    with pytest.MonkeyPatch.context() as patch:
        for name in ("LAYERS_S", "BUDGET_S", "LATER_BUDGET_S"):
            patch.setattr(bench_command, name, 1.0)
        assert main(["bench", str(folder / "run"), "--processes", "2"]) == 0
    assert main(["report", str(folder / "run")]) == 0
    return folder / "run"


def test_plan_prunes_and_foresees_its_target(run: Path) -> None:
    plan = Plan.model_validate_json((run / "plan.json").read_text())
    assert any(layer.chosen.pattern != "dense" for layer in plan.layers)
    totals = plan.totals
    assert totals.dense_time_s.median / totals.planned_time_s.median >= 1.05


def test_weights_carry_the_planned_zeros(run: Path) -> None:
    plan = Plan.model_validate_json((run / "plan.json").read_text())
    history = TrainingHistory.model_validate_json((run / "training.json").read_text())
    last = history.epochs[-1].sparsity
    for layer in plan.layers:
        if layer.chosen.pattern == "unstructured":
            assert last[layer.name] == pytest.approx(layer.chosen.sparsity, abs=0.01)


def test_bench_measures_every_host_and_swapped_layer(run: Path) -> None:
    measured = Measurements.model_validate_json((run / "measurements.json").read_text())
    assert measured.processes == 2
    assert [*run.glob("take-*"), *run.glob("layers-*")] == []
    assert {(time.variant, time.host) for time in measured.networks if time.host != "openvino"} == {
        (variant, host) for variant in ("dense", "planned") for host in ("eager", "channels_last", "compile")
    }
    plan = Plan.model_validate_json((run / "plan.json").read_text())
    swapped = {layer.name for layer in plan.layers if layer.chosen.pattern != "dense"}
    assert {layer.name for layer in measured.layers} == swapped
    assert all(layer.reverted == (layer.time_s.median >= layer.dense_time_s.median) for layer in measured.layers)
    assert measured.output_error < 1e-3
    assert measured.shipped == ("planned" if measured.speedup.low > 1 else "dense")


def test_report_is_one_offline_file(run: Path) -> None:
    html = (run / "report.html").read_text()
    assert "<svg" in html
    assert 'src="http' not in html
    assert 'href="http' not in html


def test_explain_a_layer_as_text_and_json(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", str(run / "plan.json"), "3"]) == 0
    assert "dense" in capsys.readouterr().out
    assert main(["explain", str(run / "plan.json"), "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "3"


def test_run_folder_is_not_overwritten(run: Path, user_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (run / "planned.safetensors").read_bytes()
    arguments = ["train", "--plan", str(run / "plan.json"), "--model", f"{user_file}:model"]
    assert main([*arguments, "--data", f"{user_file}:data", "--run", str(run)]) == 2
    assert "--resume" in capsys.readouterr().err
    assert (run / "planned.safetensors").read_bytes() == before


def test_measure_then_predict_the_same_problems(profile_path: Path, tmp_path: Path) -> None:
    problems = tmp_path / "problems.jsonl"
    conv = {"op": "conv2d", "n": 16, "c_in": 64, "h_in": 8, "w_in": 8, "c_out": 96, "kernel": [3, 3], "padding": [1, 1]}
    lines = [conv | {"pattern": "unstructured", "sparsity": 0.9}, conv | {"pattern": "sas:2:4", "sparsity": 0.5}]
    problems.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main(["measure", str(problems), "--out", str(tmp_path / "m.jsonl"), "--kernel", "all"]) == 0
    measured = [json.loads(line) for line in (tmp_path / "m.jsonl").read_text().splitlines()]
    timed = [record for record in measured if record["time_s"]]
    assert len(timed) > 3
    assert all(record["rel_error"] < 1e-5 for record in timed if "unstructured" in record["kernel"])
    assert measured[-1]["kernel"] is None
    assert measured[-1]["reason"]
    predict = ["predict", str(problems), "--profile", str(profile_path), "--out", str(tmp_path / "r.jsonl")]
    assert main([*predict, "--kernel", "auto"]) == 0
    predicted = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    time_s = predicted[0]["time_s"]
    assert time_s["low"] <= time_s["median"] <= time_s["high"]
    assert time_s["low"] < time_s["high"]
    assert predicted[1]["time_s"] is None
    assert predicted[1]["reason"]


def test_exported_files_load_and_compute_what_was_trained(run: Path, tmp_path: Path, user_file: Path) -> None:
    from sparseplan.model_spec import load_model
    from sparseplan.trainer.store import load_weights

    trained = load_model(f"{user_file}:model").eval()
    load_weights(trained, run / "planned.safetensors")
    check_exports(run, tmp_path, trained)
    assert (tmp_path / "net.safetensors").stat().st_size < (run / "planned.safetensors").stat().st_size


def test_export_to_another_kind_of_file_is_one_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(run), "--to", str(tmp_path / "net.tflite")]) == 2
    assert "allowed are" in capsys.readouterr().err


def test_a_plan_is_measured_and_corrected_before_training(
    run: Path, tmp_path: Path, user_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tune_command, "BUDGET_S", 0.5)
    out = tmp_path / "tuned.json"
    assert main(["tune", str(run / "plan.json"), "--out", str(out), "--rounds", "1"]) == 0
    assert "Target 1.05x" in capsys.readouterr().out
    report = load_loop(tmp_path / "tuned.tune.json")
    assert report.rounds[0].measured_dense_s > 0
    assert Plan.model_validate_json(out.read_text()).target.speedup == 1.05


def test_guided_training_writes_the_sparsities_it_found_into_the_plan(
    run: Path, user_file: Path, profile_path: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    arguments = ["train", "--plan", str(run / "plan.json"), "--model", f"{user_file}:model"]
    arguments += ["--data", f"{user_file}:data", "--run", str(tmp_path / "guided"), "--epochs", "8"]
    assert main([*arguments, "--batch-size", "8", "--guide", "magnitude", "--prune-frac", "0.8"]) == 0
    weights = load_file(tmp_path / "guided" / "planned.safetensors")
    plan = Plan.model_validate_json((tmp_path / "guided" / "plan.json").read_text())
    for layer in plan.layers:
        zeros = float((weights[f"{layer.name}.weight"] == 0).double().mean())
        assert zeros == pytest.approx(layer.chosen.sparsity)
        assert (layer.chosen.pattern == "unstructured") == (zeros > 0)
