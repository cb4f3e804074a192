"""What `import runtime` offers, what it costs, and what it leaves alone."""

from __future__ import annotations

import ast
import importlib
import json
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

from stageproof import runtime

ROOT = Path(__file__).resolve().parents[2]
FOREIGN = {
    "torch",
    "onnxruntime",
    "openvino",
    "tensorrt",
    "cuda",
    "captum",
    "scipy",
    "pydicom",
    "sklearn",
    "stageproof.train",
    "stageproof.export",
    "stageproof.benchmarks",
}
MODULES = sorted(module.name for module in pkgutil.walk_packages(runtime.__path__, "stageproof.runtime."))


def run(code: str, *flags: str, env: dict[str, str] | None = None) -> str:
    command = [sys.executable, *flags, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_all_is_complete() -> None:
    """Every public name that the package's own text binds is in __all__, sorted, and nothing else is."""
    tree = ast.parse((ROOT / "runtime" / "__init__.py").read_text(encoding="utf-8"))
    bound = {
        alias.asname or alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert bound == set(runtime.__all__)
    assert all(getattr(runtime, name) is not None for name in runtime.__all__)


def test_every_error_is_offered_and_is_a_stageproof_error() -> None:
    errors = importlib.import_module("runtime.errors")
    defined = {name for name, thing in vars(errors).items() if isinstance(thing, type)}
    assert defined <= set(runtime.__all__)
    assert all(issubclass(getattr(errors, name), errors.StageproofError) for name in defined)
    drawn = set(re.findall(r"── (\w+)", errors.__doc__))
    assert drawn | {"StageproofError", "NeuroStageError"} == defined
    assert errors.NeuroStageError is errors.StageproofError  # the name in version 0.1


def test_no_module_imports_an_engine() -> None:
    """Every module of the package, imported in a fresh process: none pulls in what only a loaded engine needs."""
    assert "stageproof.runtime.backends.onnx" in MODULES
    modules = [name for name in MODULES if not name.endswith("__main__")]
    code = f"import importlib, sys, json\nfor name in {modules!r}: importlib.import_module(name)\n"
    names = [name.split(".") for name in json.loads(run(code + "print(json.dumps(list(sys.modules)))"))]
    loaded = {".".join(parts[:depth]) for parts in names for depth in (1, 2)}
    assert {"numpy", "PIL", "stageproof.runtime"} <= loaded
    assert not loaded & FOREIGN


def test_nothing_beyond_numpy_pillow_and_the_standard_library_at_module_top() -> None:
    allowed = {"numpy", "PIL", "stageproof", *sys.stdlib_module_names}
    for path in sorted((ROOT / "runtime").rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert {name.split(".")[0] for name in names} <= allowed, path


def test_import_is_light() -> None:
    """What `import runtime` adds to numpy and Pillow: part of the package, and little of the standard library."""
    code = "import sys, numpy, PIL.Image; before = set(sys.modules); import stageproof.runtime; "
    added = set(run(code + "print(*set(sys.modules) - before)").split())
    own = {name for name in added if name.split(".")[0] == "stageproof"}
    needed_later = {"audit", "explain", "cli"}  # commands, not predictions
    assert not {name.split(".")[2] for name in own if name.count(".") > 1} & needed_later
    assert {name.split(".")[0] for name in added - own} <= {*sys.stdlib_module_names, "PIL"}
    slow = {"argparse", "asyncio", "csv", "email", "http", "multiprocessing", "socket", "ssl", "subprocess", "unittest"}
    assert not added & {*slow, "ctypes.util", "importlib.metadata", "platform", "urllib.request", "xml"}
    assert len(added - own) <= 80  # 58 with Python 3.11, numpy 2 and Pillow 12


def test_help_says_what_this_is_not(helps) -> None:
    assert "not a medical device" in helps["runtime"].text


@pytest.mark.parametrize("module", ["runtime", "runtime.audit", "runtime.explain"])
def test_help_imports_no_engine(module: str, helps) -> None:
    names = [name.split(".") for name in helps[module].modules]
    assert not {".".join(parts[:depth]) for parts in names for depth in (1, 2)} & FOREIGN


# An environment with numpy, Pillow and onnxruntime, and nothing else.


@pytest.fixture
def bare(tmp_path: Path, wheel: Path) -> list[str]:
    """A Python that sees the standard library, those packages and our wheel; no site-packages, not the checkout."""
    site = tmp_path / "site"
    site.mkdir()
    needed = {"numpy", "numpy.libs", "PIL", "pillow.libs", "onnxruntime", "flatbuffers", "google", "packaging"}
    for package in ("numpy", "PIL", "onnxruntime"):
        folder = Path(importlib.util.find_spec(package).origin).parents[1]
        for name in needed:
            if (folder / name).exists() and not (site / name).exists():
                (site / name).symlink_to(folder / name)
    (site / "stageproof").symlink_to(wheel / "stageproof")
    start = tmp_path / "start.py"
    start.write_text(f"import sys\nsys.path.insert(0, {str(site)!r})\nexec(sys.argv.pop(1))\n", encoding="utf-8")
    return [sys.executable, "-I", "-S", str(start)]


def test_a_bare_environment_predicts(bare: list[str], bundle: Path, scan: Path) -> None:
    code = """
import importlib.util, json, sys
assert importlib.util.find_spec("torch") is None and importlib.util.find_spec("pydicom") is None
from stageproof.runtime import BackendUnavailable, Predictor
predictor = Predictor(sys.argv[1], backend="onnx", guard=False)
print(json.dumps(predictor.predict(sys.argv[2]).to_dict()))
assert Predictor(sys.argv[1]).backend == "onnx"
try:
    Predictor(sys.argv[1], backend="torchscript")
except BackendUnavailable as error:
    assert "pip install 'stageproof[torch]'. Available here: onnx." in str(error), error
else:
    raise AssertionError("torchscript served without torch")
names = [name.split(".") for name in sys.modules]
loaded = {".".join(parts[:depth]) for parts in names for depth in (1, 2)}
assert not loaded & {"torch", "openvino", "stageproof.train", "stageproof.export", "pydicom"}, loaded
"""
    done = subprocess.run(
        [*bare, code, str(bundle), str(scan)], capture_output=True, text=True, timeout=120, check=False, env=clean()
    )
    assert done.returncode == 0, done.stderr
    here = runtime.Predictor(bundle, backend="onnx", guard=False).predict(scan)
    there = runtime.Prediction.from_dict(json.loads(done.stdout))
    assert there.label == here.label
    assert dict(there.probabilities) == pytest.approx(dict(here.probabilities), abs=1e-6)


def test_every_module_imports_in_a_bare_environment(bare: list[str]) -> None:
    modules = [name for name in MODULES if not name.endswith("__main__")]
    code = f"import importlib\nfor name in {modules!r}: importlib.import_module(name)\nprint('all')"
    done = subprocess.run([*bare, code], capture_output=True, text=True, timeout=60, check=False, env=clean())
    assert (done.returncode, done.stdout) == (0, "all\n"), done.stderr


def clean() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
