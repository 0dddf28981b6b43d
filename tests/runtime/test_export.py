"""What is exported computes what the compiled network does, in a fresh process too."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from planned_net import Net, masked, plan_of
from torch import nn

from sparseplan.kernels.cpu import detect_machine
from sparseplan.kernels.errors import InputError, SparseplanError, SparseplanWarning, UnsupportedError
from sparseplan.runtime import export as export_module
from sparseplan.runtime.compile import compile_model
from sparseplan.runtime.elsewhere import warn_if_planned_elsewhere
from sparseplan.runtime.export import export_network, load_program
from sparseplan.runtime.packed_weights import load_packed, save_packed
from sparseplan.trainer.store import save_weights

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

IN_A_FRESH_PROCESS = """
import sys, torch
from sparseplan import load
x, y = torch.load(sys.argv[2])
torch.testing.assert_close(load(sys.argv[1])(x), y)
"""


def test_a_program_runs_in_a_fresh_process(tmp_path: Path) -> None:
    compiled = compile_model(masked(Net()), plan_of(), machine=detect_machine())
    x = torch.randn(2, 3, 9, 9)
    assert export_network(compiled, x, tmp_path / "net.pt2") <= 1e-5
    torch.save((x, compiled(x)), tmp_path / "xy.pt")
    finished = subprocess.run(
        [sys.executable, "-c", IN_A_FRESH_PROCESS, str(tmp_path / "net.pt2"), str(tmp_path / "xy.pt")],
        check=False,
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr[-2000:]


def test_a_program_that_computes_something_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_module, "load_program", lambda _: lambda x: torch.zeros(2, 8))
    compiled = compile_model(masked(Net()), plan_of(), machine=detect_machine())
    with pytest.raises(SparseplanError, match="computes something else"):
        export_network(compiled, torch.randn(2, 3, 9, 9), tmp_path / "net.pt2")


@pytest.mark.parametrize("name", ["net.onnx", "net.xml"])
def test_forms_that_hold_no_sparse_kernel_say_so(tmp_path: Path, name: str) -> None:
    compiled = compile_model(masked(Net()), plan_of(), machine=detect_machine())
    with pytest.raises(UnsupportedError, match=r"2 layers \(conv1, conv2\).*\.pt2"):
        export_network(compiled, torch.randn(2, 3, 9, 9), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "package"), [("net.onnx", "onnxscript"), ("net.xml", "openvino")])
def test_dense_networks_in_other_forms(tmp_path: Path, name: str, package: str) -> None:
    pytest.importorskip(package)
    dense = compile_model(masked(Net()), plan_of(), machine=detect_machine(), keep_dense=["conv1", "conv2"])
    assert export_network(dense, torch.randn(2, 3, 9, 9), tmp_path / name) < 1e-4


def test_a_missing_package_is_named_with_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(UnsupportedError, match=r"openvino cannot be imported.*sparseplan\[openvino\]"):
        export_network(nn.Flatten(), torch.randn(2, 3), tmp_path / "net.xml")


def test_another_suffix_is_refused_with_those_allowed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'.tflite'; allowed are .pt2, .onnx, .xml"):
        export_network(nn.Flatten(), torch.randn(2, 3), tmp_path / "net.tflite")


def test_files_that_are_no_programs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        load_program(tmp_path / "none.pt2")
    (tmp_path / "bad.pt2").write_bytes(b"nothing")
    with pytest.raises(InputError, match="no program of torch"):
        load_program(tmp_path / "bad.pt2")


def test_packed_weights_are_small_and_come_back_exactly(tmp_path: Path) -> None:
    model, plan = masked(Net()), plan_of()
    save_packed(tmp_path / "packed.safetensors", model, plan)
    packed = load_packed(tmp_path / "packed.safetensors")
    assert packed.plan == plan
    fresh = Net()
    packed.fill(fresh)
    for name, tensor in model.state_dict().items():
        assert torch.equal(fresh.state_dict()[name], tensor), name
    with pytest.raises(InputError, match=r"packed.safetensors.*missing"):
        packed.fill(nn.Sequential(nn.Conv2d(3, 8, 3)))


def test_weights_without_a_plan_are_refused(tmp_path: Path) -> None:
    save_weights(Net(), tmp_path / "plain.safetensors")
    with pytest.raises(InputError, match="holds no plan"):
        load_packed(tmp_path / "plain.safetensors")


def test_a_plan_of_another_machine_is_announced() -> None:
    with pytest.warns(SparseplanWarning, match=r"made for test, this machine is .*plan again"):
        warn_if_planned_elsewhere(plan_of(), detect_machine())
