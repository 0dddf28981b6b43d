"""From a model SPEC to a model."""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from .kernels.errors import InputError, UnsupportedError
from .user_code import call_user_code, parse_user_code
from .zoo import ZOO

if TYPE_CHECKING:
    from torch import nn

FORMS = "zoo:NAME, torchvision:NAME, timm:NAME, path/file.py:callable or package.module:callable"


def load_model(spec: str, *, seed: int = 0) -> nn.Module:
    """Build the model that a SPEC names, with reproducible random weights.

    Parameters
    ----------
    spec : str
        ``zoo:NAME``, ``torchvision:NAME``, ``timm:NAME``, ``path/file.py:callable`` or ``package.module:callable``;
        a callable takes no arguments. User code is run only in the last two forms.
    seed : int
        Of the random weights. torch's own generator is left as it was.

    Returns
    -------
    nn.Module
        On the device and in the mode that its maker left it.

    Raises
    ------
    InputError
        If the SPEC has none of these forms, names something that is not there, or the code named does not give a
        module.
    UnsupportedError
        If torchvision or timm is asked for and does not work here.
    """
    import torch

    # fork_rng would also save and seed every GPU; models are made on the CPU.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return _build(spec)


def _build(spec: str) -> nn.Module:
    scheme, colon, name = spec.partition(":")
    if colon and scheme == "zoo":
        return _from_zoo(name)
    if colon and scheme == "torchvision":
        return _from_torchvision(name)
    if colon and scheme == "timm":
        return _from_timm(name)
    code = parse_user_code(spec)
    if code is None:
        raise InputError(f"unknown model {spec!r}; give {FORMS}")
    return _checked(call_user_code(code, returns="a torch.nn.Module"), spec)


def _from_zoo(name: str) -> nn.Module:
    if name not in ZOO:
        raise InputError(f"the zoo has no network {name!r}; it has: {', '.join(ZOO)}")
    return ZOO[name]()


def _from_torchvision(name: str) -> nn.Module:
    models = _optional_package("torchvision.models")
    known = models.list_models()
    if name not in known:
        raise InputError(_not_among("torchvision", name, known))
    return _checked(models.get_model(name, weights=None), f"torchvision:{name}")


def _from_timm(name: str) -> nn.Module:
    timm = _optional_package("timm")
    known = timm.list_models()
    if name.partition(".")[0] not in known:
        raise InputError(_not_among("timm", name, known))
    return _checked(timm.create_model(name, pretrained=False), f"timm:{name}")


def _optional_package(name: str) -> ModuleType:
    package = name.partition(".")[0]
    try:
        return import_module(name)
    except ImportError as error:
        raise UnsupportedError(
            f"{package} cannot be imported ({error}); install it (pip install {package}), "
            "or give zoo:NAME or path/file.py:callable"
        ) from None
    except (RuntimeError, OSError, AttributeError) as error:
        text = " ".join(str(error).split())
        raise UnsupportedError(
            f"{package} does not work with the installed torch ({type(error).__name__}: {text}); "
            "install the release that belongs to it"
        ) from None


def _not_among(package: str, name: str, known: list[str]) -> str:
    close = get_close_matches(name, known, n=5)
    near = f"; close to it: {', '.join(close)}" if close else ""
    return f"{package} has no model {name!r} among its {len(known)}{near}"


def _checked(made: object, spec: str) -> nn.Module:
    from torch import nn

    if not isinstance(made, nn.Module):
        raise InputError(f"{spec!r} gave {type(made).__name__}, not a torch.nn.Module; return the model itself")
    return made
