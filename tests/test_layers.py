"""The contracts of setup.cfg, which `make lint` checks on the whole tree, fail where a layer, an order or a backend is
violated: each violation is planted in a tree of empty modules of the same names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PLANTED = {
    "runtime imports train": ("runtime/errors.py", "import stageproof.train.options", "Layers"),
    "train imports export": ("train/options.py", "from stageproof.export import options", "Layers"),
    "serving imports train": ("serving/archive.py", "import stageproof.train.options", "Layers"),
    "export imports serving": (
        "export/options.py",
        "import stageproof.serving.archive",
        "Training and export do without serving",
    ),
    "inside a function": ("runtime/errors.py", "def late():\n    import stageproof.export.options", "Layers"),
    "a folder imports what imports it": (
        "runtime/images/__init__.py",
        "import stageproof.runtime.guard",
        "No cycle among the parts of any folder",
    ),
    "a cycle of modules": ("train/options.py", "import stageproof.train.run", "No cycle among the parts of any folder"),
    "runtime opens connections": ("runtime/errors.py", "import http.client", "Runtime uses no network"),
    "runtime imports the library of the hub": (
        "runtime/errors.py",
        "def late():\n    import huggingface_hub",
        "Runtime uses no network",
    ),
    "a backend imports another one": (
        "runtime/backends/onnx.py",
        "from stageproof.runtime.backends import openvino",
        "Backends know nothing of each other",
    ),
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder with a package of the modules that the contracts name, empty but for imports that are allowed."""
    pytest.importorskip("importlinter")
    names = ["__main__", "completion", "commands", "checkout", "benchmarks/__init__", "export/options", "train/options"]
    names += ["train/run", "runtime/errors", "runtime/images/__init__", "runtime/guard/__init__", "export/__init__"]
    names += ["serving/__init__", "serving/archive"]
    backends = ("onnx", "openvino", "pytorch", "tensorrt", "torch_export", "torchscript")
    names += ["runtime/backends/" + name for name in ("__init__", *backends)]
    package = tmp_path / "stageproof"
    for name in (*names, "__init__", "train/__init__", "runtime/__init__"):
        file = package / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    (package / "train/run.py").write_text("import stageproof.train.options\nimport stageproof.runtime.errors\n")
    (package / "runtime/guard/__init__.py").write_text("import stageproof.runtime.images\n")
    return tmp_path


def lint(tree: Path) -> subprocess.CompletedProcess[str]:
    call = "from importlinter.cli import lint_imports_command as run; run()"
    return subprocess.run(
        [sys.executable, "-c", call, "--config", str(ROOT / "setup.cfg"), "--no-cache"],
        cwd=tree,
        env={"PYTHONPATH": str(tree), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_tree_without_violations_passes(tree):
    done = lint(tree)
    assert done.returncode == 0, done.stdout + done.stderr
    contracts = (ROOT / "setup.cfg").read_text(encoding="utf-8").count("[importlinter:contract:")
    assert contracts >= 5
    assert f"{contracts} kept, 0 broken" in done.stdout


@pytest.mark.parametrize("what", PLANTED)
def test_a_violation_is_found_by_the_contract_that_forbids_it(tree, what):
    file, line, contract = PLANTED[what]
    with (tree / "stageproof" / file).open("a") as module:
        module.write(line + "\n")
    done = lint(tree)
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"{contract} BROKEN" in done.stdout
