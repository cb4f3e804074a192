"""Names of packages and of their modules do not hide each other, and warnings name the caller's line."""

from __future__ import annotations

import ast
import copy as copying
import importlib
import inspect
import itertools
import pickle
import pkgutil
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from stageproof import runtime
from stageproof.runtime import BackendError, InputSpec, Predictor, backends, preprocess
from stageproof.runtime import preprocess as module
from stageproof.runtime.preprocess import preprocess as function

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = [
    "stageproof",
    *(
        ".".join(["stageproof", *path.parent.relative_to(ROOT).parts])
        for part in ("runtime", "train", "export", "serving", "benchmarks")
        for path in sorted((ROOT / part).rglob("__init__.py"))
    ),
]
IMAGE, SPEC = Image.new("L", (40, 30), 90), InputSpec.imagenet(8)


def test_the_module_is_imported_by_its_name() -> None:
    assert inspect.ismodule(module)
    assert module is importlib.import_module("runtime.preprocess")
    assert module.InputSpec is InputSpec
    assert inspect.isfunction(module.preprocess)
    assert module.resize(IMAGE, SPEC).shape == (8, 8)


@pytest.mark.parametrize("call", [preprocess, runtime.preprocess, module, module.preprocess, function])
def test_the_function_is_called_by_the_same_name(call: Callable) -> None:
    expected = function(IMAGE, SPEC)
    assert np.array_equal(call(IMAGE, SPEC), expected)
    out = np.empty_like(expected)
    assert call(IMAGE, spec=SPEC, out=out) is out
    assert np.array_equal(pickle.loads(pickle.dumps(partial(call, spec=SPEC)))(IMAGE), expected)
    assert "bit" in (call.__doc__ or "") or "float32" in (call.__doc__ or "")
    assert callable(copying.copy(call))


def test_a_module_can_be_patched_by_its_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.preprocess.IMAGENET_MEAN", (0.0, 0.0, 0.0))
    assert module.InputSpec.imagenet(8).mean == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("package", PACKAGES)
def test_no_package_hides_a_module_behind_another_thing(package: str) -> None:
    """What `__init__.py` binds under the name of a module of the package, other than the module itself."""
    folder = ROOT.joinpath(*package.split(".")[1:] if package != "stageproof" else [package])
    modules = {entry.name for entry in pkgutil.iter_modules([str(folder)])}
    tree = ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))
    bound = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module != package
        for alias in node.names
    }
    bound |= {node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    for name in sorted(bound & modules):
        assert isinstance(getattr(importlib.import_module(package), name), ModuleType), f"{package}.{name}"


# Warnings: an artifact that does not run is passed over, at the line that asked for a Predictor.


@pytest.fixture
def passed_over(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    real, calls = backends.load, itertools.count()

    def load(*args, **kwargs):
        if next(calls) % 2 == 0:  # the first that each Predictor tries
            raise BackendError("no.")
        return real(*args, **kwargs)

    monkeypatch.setattr(backends, "load", load)
    return bundle


def here(caught: list[warnings.WarningMessage]) -> list[str]:
    return [Path(one.filename).name for one in caught if one.category is RuntimeWarning]


class Mine(Predictor):
    """A user's own."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, guard=False)


ENTRIES: dict[str, Callable[[Path], object]] = {
    "positional": lambda bundle: Predictor(bundle),
    "by name": lambda bundle: Predictor(path=bundle, guard=False),
    "a subclass": Mine,
    "in a list": lambda bundle: [Predictor(one) for one in [bundle]],
}


@pytest.mark.parametrize("entry", [*ENTRIES, "pickled"])
def test_a_warning_points_at_the_callers_line(entry: str, passed_over: Path) -> None:
    if entry == "pickled":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sent = pickle.dumps(Predictor(passed_over, guard=False))
        use = partial(pickle.loads, sent)
    else:
        use = partial(ENTRIES[entry], passed_over)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        use()
    assert here(caught) == [Path(__file__).name]
