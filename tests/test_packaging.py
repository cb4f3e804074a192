"""The floors, and what each may import and cost."""

from __future__ import annotations

import ast
import pkgutil
import subprocess
import sys
from importlib.metadata import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ALLOWED = {
    "runtime": {"runtime"},
    "train": {"train", "runtime"},
    "export": {"export", "train", "runtime"},
    "benchmarks": {"benchmarks", "export", "train", "runtime"},
}
COMMANDS = ["runtime", "runtime.explain", "train", "train.audit", "train.evaluate", "train.crossvalidate"]
COMMANDS += ["train.data.phantom"]
COMMANDS += ["export", "export.bisect", "benchmarks"]
HEAVY = {"torch", "torchvision", "onnx", "onnxruntime", "openvino", "sklearn", "scipy", "matplotlib", "pyarrow"}


def imports(path: Path) -> set[str]:
    """Top-level names of every package a module imports, at its top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("floor", ALLOWED)
def test_a_floor_imports_only_from_floors_below(floor):
    modules = sorted((ROOT / floor).rglob("*.py"))
    assert modules
    wrong = {str(path.relative_to(ROOT)): imports(path) & set(ALLOWED) - ALLOWED[floor] for path in modules}
    assert {path: names for path, names in wrong.items() if names} == {}


def test_every_module_imports():
    names = [
        module.name
        for floor in ALLOWED
        for module in pkgutil.walk_packages([str(ROOT / floor)], f"{floor}.")
        if not module.name.endswith("__main__") and ".test_" not in module.name
    ]
    assert len(names) > 30
    code = f"import importlib\nfor name in {names!r}: importlib.import_module(name)"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_help_needs_no_engine_and_fits_a_terminal(command):
    code = (
        "import runpy, sys; sys.argv = ['x', '--help']\n"
        f"try: runpy.run_module({command!r}, run_name='__main__', alter_sys=True)\n"
        "except SystemExit as end: assert end.code in (0, None), end.code\n"
        f"heavy = {HEAVY!r} & set(sys.modules); assert not heavy, heavy"
    )
    environment = {"COLUMNS": "80", "PATH": "/usr/bin:/bin", "TERM": "dumb"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, text=True, capture_output=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "usage: python -m " in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_the_base_install_is_numpy_and_pillow():
    required = [line for line in metadata("stageproof").get_all("Requires-Dist") if "extra ==" not in line]
    assert sorted(line.split(">=")[0].lower() for line in required) == ["numpy", "pillow"]
