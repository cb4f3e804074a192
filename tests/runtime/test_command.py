"""What commands do where a package is not installed, and which exit status an error gives."""

from __future__ import annotations

import configparser
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stageproof.runtime import errors
from stageproof.runtime.cli.exit_status import exit_status, require_or_exit, status_of
from stageproof.runtime.cli.extras import require
from stageproof.runtime.errors import DependencyError, StageproofError

ROOT = Path(__file__).parents[2]

HIDE = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {hidden!r}:
            raise ModuleNotFoundError(f'No module named {{name!r}}', name=name)
sys.meta_path.insert(0, Hidden())
import importlib.util
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name.split('.')[0] in {hidden!r} else real(name, package)
import runpy
sys.argv = {argv!r}
runpy.run_module({module!r}, run_name='__main__', alter_sys=True)
"""


def run_without(hidden: set[str], module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`python -m module arguments` where the packages `hidden` are not installed."""
    code = HIDE.format(hidden=hidden, argv=[module, *arguments], module=module)
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_what_is_installed_passes_and_what_is_not_is_named_with_its_extra():
    require("export", "json", "numpy")
    with pytest.raises(
        DependencyError, match=r"the package no_such_one is not installed: pip install 'stageproof\[x\]'"
    ):
        require("x", "json", "no_such_one")
    with pytest.raises(DependencyError, match="the packages no_such_one, nor_this are not installed"):
        require("x", "no_such_one", "nor_this")


def test_a_failed_import_is_one_line_and_status_2(capsys):
    def main() -> int:
        import no_such_package.inner  # noqa: F401

        return 0

    assert exit_status(main, extra="train") == 2
    error = capsys.readouterr().err
    assert error == "DependencyError: the package no_such_package is not installed: pip install 'stageproof[train]'\n"


@pytest.mark.parametrize("name", ["export.no_such_module", "json.no_such_module"])
def test_a_module_that_no_extra_installs_is_a_fault_of_ours(name):
    def main() -> int:
        __import__(name)
        return 0

    with pytest.raises(ModuleNotFoundError):
        exit_status(main, extra="train")


def test_a_file_of_the_users_does_not_hide_our_package(tmp_path):
    (tmp_path / "train.py").write_text("raise SystemExit('mine')\n")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    arguments = [sys.executable, "-m", "export", "no-such-run"]
    done = subprocess.run(arguments, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("CheckpointError: no-such-run ")


def test_a_module_may_check_before_its_own_imports(capsys):
    require_or_exit("train", "json")
    with pytest.raises(SystemExit) as left:
        require_or_exit("train", "no_such_one")
    assert left.value.code == 2
    assert "'stageproof[train]'" in capsys.readouterr().err


def test_every_error_is_of_the_input_or_of_the_work():
    kinds = {t for t in vars(errors).values() if isinstance(t, type) and issubclass(t, StageproofError)}
    work = {kind.__name__ for kind in kinds if status_of(kind.__new__(kind)) == 1}
    of_work = ("Backend", "Fork", "Audit", "Training", "Hub", "Export", "Parity", "Isolation")
    assert work == {"StageproofError", *(f"{name}Error" for name in of_work)}


@pytest.mark.parametrize(
    ("module", "hidden", "extra"),
    [("export", "tyro", "export"), ("export.bisect", "tyro", "export"), ("export", "torch", "export")],
)
def test_a_command_names_the_extra_to_install(module, hidden, extra):
    done = run_without({hidden}, module, "no-such-run")
    assert done.returncode == 2, done.stderr
    expected = f"DependencyError: the package {hidden} is not installed: pip install 'stageproof[{extra}]'\n"
    assert done.stderr == expected


def test_the_extras_that_commands_name_are_in_setup_cfg():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    assert {"train", "export", "benchmarks", "sign"} <= set(config["options.extras_require"])
