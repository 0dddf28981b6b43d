"""Calls a user's own function, named as ``path/file.py:callable`` or ``package.module:callable``.

User code runs only because the user named it. What it raises is the user's to mend: it comes back as one line that
names the file, the line and the error.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import ModuleType

from .kernels.errors import InputError

_USER_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NameError,
    OSError,
    RuntimeError,
    SyntaxError,
    SystemExit,
    TypeError,
    ValueError,
)
"""What a module or function of a user may raise for reasons of its own; a script without a main guard ends itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UserCode:
    """A callable in a module or file, not yet imported."""

    spec: str
    module: str
    """Dotted name, or path of a ``.py`` file."""
    callable_name: str

    @property
    def is_file(self) -> bool:
        return self.module.endswith(".py") or "/" in self.module


def parse_user_code(spec: str) -> UserCode | None:
    """Split ``file.py:callable`` or ``package.module:callable``; None where `spec` is neither."""
    module, colon, name = spec.rpartition(":")
    if not colon or not name.isidentifier():
        return None
    code = UserCode(spec=spec, module=module, callable_name=name)
    if code.is_file or all(part.isidentifier() for part in module.split(".")):
        return code
    return None


def call_user_code(code: UserCode, *, returns: str) -> object:
    """Import the module and call the callable without arguments.

    A file is executed anew at each call, under a name made from its path; while it runs, modules beside it (for a
    dotted name: in the working directory) can be imported.

    Parameters
    ----------
    returns : str
        What the callable should give, for messages ("a torch.nn.Module").

    Raises
    ------
    InputError
        If the file, module or callable is missing, or the code raises.
    """
    path = _existing_file(code) if code.is_file else None
    with _importable(path.parent if path else Path.cwd()):
        try:
            module = _execute_file(path) if path else importlib.import_module(code.module)
        except _USER_ERRORS as error:
            raise InputError(f"importing {code.module} for {code.spec!r} failed: {_one_line(error)}") from error
        target = getattr(module, code.callable_name, None)
        if not callable(target):
            known = ", ".join(_callables(module)) or "none"
            raise InputError(
                f"{code.module} has no callable {code.callable_name!r} (wanted for {code.spec!r}); it has: {known}"
            )
        try:
            return target()
        except _USER_ERRORS as error:
            raise InputError(
                f"calling {code.spec!r} failed: {_one_line(error)}; give a callable without arguments "
                f"that returns {returns}"
            ) from error


def _existing_file(code: UserCode) -> Path:
    path = Path(code.module).expanduser().resolve()
    if not path.is_file():
        raise InputError(f"no file {code.module} (wanted for {code.spec!r}); give path/file.py:callable")
    return path


def _execute_file(path: Path) -> ModuleType:
    name = f"sparseplan_user_{path.stem}_{sha256(str(path).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path.name} is not a Python source file")
    module = importlib.util.module_from_spec(spec)
    previous = sys.modules.get(name)
    # Dataclasses and torch.export look a class's module up by name while the file still runs.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        if previous is None:
            del sys.modules[name]
        else:
            sys.modules[name] = previous
        raise
    return module


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    entry = str(folder)
    sys.path.insert(0, entry)
    # A file written a moment ago is otherwise missed by the import system's cached listing.
    importlib.invalidate_caches()
    try:
        yield
    finally:
        if entry in sys.path:
            sys.path.remove(entry)


def _callables(module: ModuleType) -> list[str]:
    """Public callables, those defined in the module itself where there are any."""
    public = {name: value for name, value in vars(module).items() if callable(value) and not name.startswith("_")}
    own = [name for name, value in public.items() if getattr(value, "__module__", None) == module.__name__]
    return sorted(own or public)


def _one_line(error: BaseException) -> str:
    """Type, text and place of an error, on one line; the place is the deepest one in the user's own file."""
    ours = {__file__, importlib.__file__}
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if frame.filename not in ours and not frame.filename.startswith("<")]
    where = ""
    if theirs:
        deepest = [frame for frame in theirs if frame.filename == theirs[0].filename][-1]
        where = f" ({Path(deepest.filename).name}, line {deepest.lineno})"
    text = " ".join(str(error).split())[:300]
    return type(error).__name__ + (f": {text}" if text else "") + where
