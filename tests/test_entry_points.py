"""Installed commands, and python -P -m, import nothing from the working folder; the lock names no registry."""

from __future__ import annotations

import configparser
import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from stageproof.commands import COMMANDS

ROOT = Path(__file__).resolve().parents[1]


def entry_points() -> dict[str, str]:
    """Command → module:function, as setup.cfg has them."""
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    lines = settings["options.entry_points"]["console_scripts"].split("\n")
    return dict(tuple(part.strip() for part in one.split("=")) for one in lines if one.strip())


FORKS = """
import os
for command in sys.argv[1:]:
    child = os.fork()
    if child == 0:
        sys.argv = [sys.argv[0], command, "--help"]
        break
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status or os.path.exists("ran"):
        sys.exit(f"{command} ended with {status}")
else:
    print(len(sys.argv) - 1, "commands")
    sys.exit()
"""


@pytest.fixture
def hostile(tmp_path) -> Path:
    """A folder of images with modules beside them that are not ours."""
    folder = tmp_path / "images"
    for package in ("stageproof", "runtime", "train", "export"):
        (folder / package).mkdir(parents=True)
        (folder / package / "__init__.py").write_text("import pathlib; pathlib.Path('ran').touch()")
        (folder / package / "__main__.py").write_text("import pathlib; pathlib.Path('ran').touch()")
    for module in ("numpy", "PIL", "tyro", "json", "argparse"):
        (folder / f"{module}.py").write_text("import pathlib; pathlib.Path('ran').touch()")
    return folder


def test_an_installed_command_runs_nothing_of_the_working_folder(hostile, tmp_path):
    """Every command, each in a fork of the process that the script starts."""
    ((name, target),) = entry_points().items()
    module, function = target.split(":")
    assert callable(getattr(import_module(module), function))
    # As pip writes it: Python puts the script's own folder first.
    script = tmp_path / "bin" / name
    script.parent.mkdir()
    script.write_text(f"import sys\nfrom {module} import {function}\n{FORKS}sys.exit({function}())\n")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONSAFEPATH"}
    done = subprocess.run(
        [sys.executable, str(script), *COMMANDS],
        cwd=hostile,
        env={**environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"{len(COMMANDS)} commands"
    assert not (hostile / "ran").exists()


@pytest.mark.skipif(sys.version_info < (3, 11), reason="-P came with Python 3.11")
@pytest.mark.parametrize("command", ["predict", "train", "export"])
def test_python_with_p_runs_nothing_of_the_working_folder(command, hostile):
    words = ["-m", "stageproof", command, "--help"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-P", *words], cwd=hostile, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not (hostile / "ran").exists()
    subprocess.run([sys.executable, *words], cwd=hostile, env=environment, capture_output=True)
    assert (hostile / "ran").exists()  # the control: without it they do run


def test_the_lock_has_a_hash_for_each_package_and_names_no_host():
    lock = (ROOT / "requirements" / "runtime.lock").read_text(encoding="utf-8")
    packages = re.findall(r"^([\w.-]+)==\S+ \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", lock, re.MULTILINE)
    assert {name for name, _ in packages} >= {"numpy", "pillow", "onnxruntime", "openvino", "pydicom"}
    assert len(packages) == len(re.findall(r"^\w\S*==", lock, re.MULTILINE))
    assert "://" not in lock
    assert "index" not in re.sub(r"--no-emit-index-url", "", lock)


def test_nothing_recommends_a_name_on_a_public_index():
    files = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "Makefile"]
    files += [
        path
        for floor in ("runtime", "train", "export", "serving", "benchmarks")
        for path in (ROOT / floor).rglob("*.py")
    ]
    by_name = re.compile(r"install\s+'?(neurostage|stageproof['\"]?(\s|$))")
    wrong = [str(path.relative_to(ROOT)) for path in files if by_name.search(path.read_text("utf-8"))]
    assert wrong == []
