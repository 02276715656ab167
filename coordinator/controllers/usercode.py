"""User code: ``class: my_module:MyController`` with ``args:``, from a file beside the scenario or an installed module.

``my_module`` is ``my_module.py`` (``a.b`` is ``a/b.py``) in the scenario's folder where there is one, whatever else of
that name is installed; otherwise it is imported as usual. While it is loaded it may import its neighbours.
"""

import difflib
import hashlib
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from coordinator.controllers.api import Controller


class UserCodeError(Exception):
    """User code that cannot be used; ``value`` is what stands in the scenario, ``expected`` what would help."""

    def __init__(self, value: str, expected: str) -> None:
        super().__init__(f"{value}: {expected}")
        self.value = value
        self.expected = expected


def load_class(spec: str, folder: Path) -> type[Controller]:
    """The class that ``module:Class`` names. Raises UserCodeError; the module's own errors are told in one line."""
    module_name, colon, class_name = spec.partition(":")
    if not (colon and class_name.isidentifier() and all(part.isidentifier() for part in module_name.split("."))):
        raise UserCodeError(spec, "expected module:Class, as in paper_day:PaperDay")
    module = _load_module(spec, module_name, folder)
    found = getattr(module, class_name, None)
    if not isinstance(found, type):
        classes = [name for name, kind in vars(module).items() if isinstance(kind, type) and hasattr(kind, "step")]
        close = difflib.get_close_matches(class_name, classes, n=1)
        hint = f"did you mean {close[0]}?" if close else f"it has {', '.join(classes) or 'no class with a step method'}"
        raise UserCodeError(spec, f"{module_name} has no class {class_name}; {hint}")
    if not callable(getattr(found, "step", None)):
        raise UserCodeError(spec, "expected a class with a method step(self, seen)")
    return found


def construct(kind: type[Controller], args: Mapping[str, Any]) -> Controller:
    """The controller made with ``args``. Raises UserCodeError where they do not fit or its constructor fails."""
    signature = inspect.signature(kind)
    try:
        signature.bind(**args)
    except TypeError as error:
        raise UserCodeError(str(dict(args)), f"{error}; {kind.__name__} takes {signature}") from error
    try:
        return kind(**args)
    except Exception as error:  # user code may raise anything; it is told, with its place
        raise UserCodeError(str(dict(args)), f"{kind.__name__} failed: {_told(error)}") from error


def _load_module(spec: str, name: str, folder: Path) -> ModuleType:
    path = folder.joinpath(*name.split(".")).with_suffix(".py")
    try:
        with _importable(folder):
            return _from_file(path) if path.is_file() else importlib.import_module(name)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}."):
            raise UserCodeError(spec, f"no file {path} and no installed module {name}") from error
        raise UserCodeError(spec, f"{name} failed to load: {_told(error)}") from error


def _from_file(path: Path) -> ModuleType:
    # A name of its own, so that calendar.py beside the scenario and the installed calendar can both be there.
    digest = hashlib.sha256(str(path).encode()).hexdigest()[:12]
    name = f"wattloop_usercode_{digest}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look a class's module up by name
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """``folder`` at the end of the search path, so that it hides nothing that is installed."""
    sys.path.append(str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def _told(error: BaseException) -> str:
    """An error of user code in one line, with its place."""
    if isinstance(error, SyntaxError):
        place = f"{error.filename}:{error.lineno}"
        return f"{error.msg} ({place})"
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{place}".replace("\n", " ")
