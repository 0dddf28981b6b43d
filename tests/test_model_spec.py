"""Model SPECs: every form, and what is said where one is wrong."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from sparseplan.kernels.errors import InputError, UnsupportedError
from sparseplan.model_spec import load_model

NETWORK = """
from torch import nn
def build():
    return nn.Linear(3, 2)
class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)
def needs_width(width):
    return nn.Linear(width, 2)
def gives_text():
    return "a model"
def raises():
    return nn.Linear(3, 2).no_such_thing
not_callable = 3
"""


@pytest.fixture
def network_file(tmp_path: Path) -> Path:
    path = tmp_path / "network.py"
    path.write_text(NETWORK)
    return path


def message(spec: str, error: type[Exception] = InputError) -> str:
    with pytest.raises(error) as caught:
        load_model(spec)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_zoo() -> None:
    assert load_model("zoo:lenet").fc2.out_features == 10


def test_weights_depend_on_the_seed_alone_and_leave_torch_as_it_was() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = load_model("zoo:lenet").conv1.weight
    torch.manual_seed(6)
    second = load_model("zoo:lenet").conv1.weight
    other = load_model("zoo:lenet", seed=1).conv1.weight
    torch.manual_seed(5)
    load_model("zoo:lenet")

    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(torch.rand(3), expected)


def test_function_and_class_of_a_file(network_file: Path) -> None:
    assert load_model(f"{network_file}:build").in_features == 3
    assert load_model(f"{network_file}:Small").layer.in_features == 2


def test_a_file_is_read_anew_and_files_of_one_name_do_not_mix(tmp_path: Path) -> None:
    paths = []
    for folder, width in (("a", 3), ("b", 4)):
        (tmp_path / folder).mkdir()
        paths.append(tmp_path / folder / "network.py")
        paths[-1].write_text(NETWORK.replace("nn.Linear(3, 2)", f"nn.Linear({width}, 2)"))
    widths = [load_model(f"{path}:build").in_features for path in (*paths, *paths)]
    paths[0].write_text(NETWORK.replace("nn.Linear(3, 2)", "nn.Linear(51, 2)"))

    assert widths == [3, 4, 3, 4]
    assert load_model(f"{paths[0]}:build").in_features == 51


def test_a_file_may_import_its_neighbours_and_hold_dataclasses(tmp_path: Path) -> None:
    (tmp_path / "neighbour_of_the_model.py").write_text("WIDTH = 6\n")
    (tmp_path / "net.py").write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "from torch import nn\n"
        "from neighbour_of_the_model import WIDTH\n"
        "@dataclass\nclass Config:\n    width: int = WIDTH\n"
        "def build():\n    return nn.Linear(Config().width, 2)\n"
    )
    before = list(sys.path)

    assert load_model(f"{tmp_path / 'net.py'}:build").in_features == 6
    assert sys.path == before


def test_dotted_module_of_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a_users_package").mkdir()
    (tmp_path / "a_users_package" / "__init__.py").touch()
    (tmp_path / "a_users_package" / "nets.py").write_text(NETWORK)
    monkeypatch.chdir(tmp_path)

    assert load_model("a_users_package.nets:build").in_features == 3


@pytest.mark.parametrize("spec", ["", "resnet20", "zoo", ":", "no such:form", "weights.pt"])
def test_unknown_forms_name_the_known_ones(spec: str) -> None:
    assert "zoo:NAME" in message(spec)


def test_unknown_zoo_network_lists_the_zoo() -> None:
    text = message("zoo:resnet21")
    assert "'resnet21'" in text
    assert "resnet20, resnet32" in text


def test_missing_file() -> None:
    assert "no file nowhere/net.py" in message("nowhere/net.py:build")


def test_missing_callable_lists_those_there(network_file: Path) -> None:
    text = message(f"{network_file}:bild")
    assert "'bild'" in text
    assert "Small, build, gives_text" in text


def test_not_callable(network_file: Path) -> None:
    assert "no callable 'not_callable'" in message(f"{network_file}:not_callable")


def test_missing_module() -> None:
    assert "ModuleNotFoundError" in message("no_such_package_anywhere.nets:build")


def test_callable_that_needs_arguments(network_file: Path) -> None:
    text = message(f"{network_file}:needs_width")
    assert "TypeError" in text
    assert "without arguments" in text


def test_not_a_module_returned(network_file: Path) -> None:
    assert "gave str, not a torch.nn.Module" in message(f"{network_file}:gives_text")


def test_error_inside_the_callable_names_its_line(network_file: Path) -> None:
    text = message(f"{network_file}:raises")
    assert "AttributeError" in text
    assert "network.py, line 14" in text


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("def build(:\n", "SyntaxError"),
        ("import no_such_package_anywhere\n", "ModuleNotFoundError"),
        ("x = 1\ny = x / 0\n", "ZeroDivisionError: division by zero (bad.py, line 2)"),
        ("raise ValueError('first\\nsecond')\n", "ValueError: first second"),
        ("open('/no/such/file')\n", "FileNotFoundError"),
        ("{}['missing']\n", "KeyError"),
        ("assert False\n", "AssertionError (bad.py, line 1)"),
        ("import sys\nsys.exit(0)\n", "SystemExit"),
    ],
)
def test_errors_at_import(tmp_path: Path, source: str, said: str) -> None:
    path = tmp_path / "bad.py"
    path.write_text(source)
    loaded = set(sys.modules)
    text = message(f"{path}:build")

    assert said in text
    assert str(path) in text
    assert not {name for name in set(sys.modules) - loaded if name.startswith("sparseplan_user")}


@pytest.mark.parametrize("package", ["torchvision", "timm"])
def test_optional_library_that_is_not_there(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setitem(sys.modules, f"{package}.models", None)
    assert f"install {package}" in message(f"{package}:resnet18", UnsupportedError)


STAND_INS = {
    "torchvision": (
        "def list_models():\n    return ['resnet18', 'resnet34']\n"
        "def get_model(name, weights):\n    from torch import nn\n"
        "    assert weights is None\n    return nn.Linear(18, 2)\n"
    ),
    "timm": (
        "def list_models():\n    return ['resnet18', 'resnet34']\n"
        "def create_model(name, pretrained):\n    from torch import nn\n"
        "    assert not pretrained\n    return nn.Linear(18, 2)\n"
    ),
}


@pytest.mark.parametrize("package", STAND_INS)
def test_optional_library_by_a_stand_in(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real libraries are optional; this holds the calls to the part of their interface that is used."""
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").write_text(STAND_INS[package])
    (tmp_path / package / "models.py").write_text(STAND_INS[package])
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        assert load_model(f"{package}:resnet18").in_features == 18
        assert "close to it: resnet34, resnet18" in message(f"{package}:resnet35")
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == package]:
            del sys.modules[name]


def test_torchvision_that_does_not_fit_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')"
    )
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path))

    assert "torchvision::nms" in message("torchvision:resnet18", UnsupportedError)
