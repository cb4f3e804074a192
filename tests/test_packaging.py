"""The wheel: one package, whose commands import nothing heavy and name the extra they need; and the folders' sizes."""

from __future__ import annotations

import configparser
import importlib.util
import os
import pkgutil
import re
import subprocess
import sys
from importlib.metadata import metadata
from pathlib import Path

import pytest

import stageproof
from stageproof.commands import COMMANDS
from tests.helps import MODULES, PARTS, RECIPES
from tests.pages import read_page

ROOT = Path(__file__).resolve().parents[1]
HEAVY = {"torch", "torchvision", "onnx", "onnxruntime", "openvino", "sklearn", "scipy", "matplotlib", "pyarrow"}


def test_every_module_imports():
    names = [
        module.name
        for part in ("runtime", "train", "export", "serving", "benchmarks")
        for module in pkgutil.walk_packages([str(ROOT / part)], f"stageproof.{part}.")
        if not module.name.endswith("__main__") and ".test_" not in module.name
    ]
    if importlib.util.find_spec("ray") is None:  # of its own extra, which nothing else installs
        names.remove("stageproof.serving.archive.engines.ray_actors")
    others = {"rayserve": "ray"}  # servers that are measured import their own packages
    for name in [name for name in names if ".serving.peers." in name and name.endswith("_server")]:
        package = name.rpartition(".")[2].removesuffix("_server")
        if importlib.util.find_spec(others.get(package, package)) is None:
            names.remove(name)
    assert len(names) > 30
    code = f"import importlib\nfor name in {names!r}: importlib.import_module(name)"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr


def test_setup_cfg_lists_every_package():
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    listed = settings["options"]["packages"].split()
    parts = ("runtime", "train", "export", "serving", "benchmarks")
    folders = [path.parent for part in parts for path in (ROOT / part).rglob("__init__.py")]
    assert sorted(listed) == sorted(
        ["stageproof", *(".".join(["stageproof", *f.relative_to(ROOT).parts]) for f in folders)]
    )


def test_the_wheel_has_one_top_level_package(wheel):
    found = {path.name for path in wheel.iterdir()} - {"bin"}
    assert found == {"stageproof", f"stageproof-{stageproof.__version__}.dist-info"}
    assert (wheel / "stageproof" / "py.typed").is_file()
    ours = {
        path.relative_to(ROOT)
        for part in ("runtime", "train", "export", "serving")
        for path in (ROOT / part).rglob("*.py")
    }
    templates = [
        *(ROOT / "train").rglob("*.j2"),
        *(ROOT / "export").rglob("*.j2"),
        *(ROOT / "benchmarks").rglob("*.j2"),
        *(ROOT / "train").rglob("*.css"),
        *(ROOT / "serving/http/page/static").iterdir(),
    ]
    ours |= {path.relative_to(ROOT) for path in templates}
    assert Path("train/reports/base.html.j2") in ours
    assert {path for path in ours if not (wheel / "stageproof" / path).is_file()} == set()


def test_pages_are_made_from_the_templates_of_the_wheel(wheel, tmp_path):
    code = (
        f"import sys; sys.path.insert(0, {str(wheel)!r})\n"
        "from stageproof.train.cards.run_index import index_page\n"
        "record = {'weights_sha256': 'ab' * 32, 'recipe': {'name': 'demo', 'architecture': '<script>'},"
        " 'labels': ['CN', 'AD'], 'metrics': {'accuracy': 0.5, 'slices': 4}}\n"
        "print(index_page('run', record, ['run.json']))"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    page = read_page(done.stdout)
    assert page.links == ["run.json"]
    assert "<script>" in page.text


# A Python that sees the wheel, numpy, Pillow, onnxruntime and nothing else, with packages of others beside them.


@pytest.fixture
def installed(wheel, tmp_path) -> list[str]:
    site = tmp_path / "site"
    site.mkdir()
    for package in ("numpy", "PIL", "onnxruntime"):
        folder = Path(importlib.util.find_spec(package).origin).parents[1]
        for name in (package, "numpy.libs", "pillow.libs", "flatbuffers", "google", "packaging"):
            if (folder / name).exists() and not (site / name).exists():
                (site / name).symlink_to(folder / name)
    (site / "stageproof").symlink_to(wheel / "stageproof")
    for theirs in ("runtime", "train", "export", "serving", "benchmarks"):
        (site / theirs).mkdir()
        (site / theirs / "__init__.py").write_text("raise SystemExit('of somebody else')\n")
    start = tmp_path / "start.py"
    start.write_text(
        f"import sys\nsys.path.insert(0, {str(site)!r})\nfrom stageproof.__main__ import run\nsys.exit(run())\n"
    )
    return [sys.executable, "-I", "-S", str(start)]


def stageproof_of(installed: list[str], *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run([*installed, *words], cwd=cwd, text=True, capture_output=True, env=environment)


def test_the_installed_command_predicts_beside_packages_of_others(installed, tiny_bundle, scan, tmp_path):
    done = stageproof_of(installed, "--version", cwd=tmp_path)
    assert done.stdout == f"stageproof {stageproof.__version__}\n"
    words = ("predict", str(scan), "--bundle", str(tiny_bundle), "--backend", "onnx", "--json")
    done = stageproof_of(installed, *words, cwd=tmp_path)
    assert done.returncode in (0, 1), done.stderr
    assert '"backend": "onnx"' in done.stdout


def test_a_mistyped_bundle_and_a_mistyped_command_are_usage_errors(installed, scan, tmp_path):
    done = stageproof_of(installed, "predict", str(scan), "--bundle", "bundl", cwd=tmp_path)
    assert done.returncode == 2
    assert "bundl" in done.stderr
    done = stageproof_of(installed, "predikt", cwd=tmp_path)
    assert done.returncode == 2
    assert "there is no command 'predikt'. Did you mean predict?" in done.stderr


@pytest.mark.parametrize("command", [name for name, command in COMMANDS.items() if command.extra])
def test_a_command_without_its_packages_names_the_extra(command, installed, tmp_path):
    (tmp_path / "slices.parquet").touch()
    words = {"audit": ["--data", "slices.parquet"], "explain": ["nowhere", "scan.png"], "crossvalidate": ["--out", "x"]}
    words["push"] = ["bundle", "owner/name"]
    words["sbom"] = ["--out", "x"]
    done = stageproof_of(installed, command, *words.get(command, []), cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    extra = COMMANDS[command].extra
    if command != "explain":  # looks for the bundle first
        assert f"pip install 'stageproof[{extra}]'" in done.stderr, done.stderr


def test_a_remote_bundle_without_the_library_names_the_extra(installed, tmp_path):
    done = stageproof_of(installed, "predict", "--from", "hf:owner/name", "scan.jpg", cwd=tmp_path)
    assert done.returncode == 2
    assert "DependencyError: the package huggingface_hub is not installed: pip install 'stageproof[hub]'" in done.stderr


def test_phantoms_need_no_extra(installed, tmp_path):
    done = stageproof_of(installed, "phantom", "--out", "phantoms", "--patients", "1", "--slices", "1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("phantoms/*/*.png"))) == 4


def test_messages_of_the_installed_command_name_it(installed, tmp_path):
    done = stageproof_of(installed, "predict", cwd=tmp_path)
    assert "usage: stageproof predict " in done.stderr
    assert "For example: stageproof predict --bundle" in done.stderr


def test_completion_knows_commands_and_their_options(tmp_path):
    words = [sys.executable, "-m", "stageproof", "completion", "bash"]
    script = subprocess.run(words, cwd=ROOT, text=True, capture_output=True, check=True).stdout
    (tmp_path / "scan.jpg").touch()
    ask = "COMP_WORDS=({0}); COMP_CWORD={1}; _stageproof; echo ${{COMPREPLY[@]}}\n"
    asked = [("stageproof ex", 1), ("stageproof train --wei", 2), ("stageproof predict sc", 2)]
    code = script + "".join(ask.format(*one) for one in asked)
    done = subprocess.run(["bash", "-c", code], cwd=tmp_path, text=True, capture_output=True, check=True)
    assert done.stdout.splitlines() == ["export explain", "--weights --weight-decay", "scan.jpg"]


def test_short_and_long_names_are_one_module():
    code = (
        "import runtime.predictor as short, stageproof.runtime.predictor as long, runtime, stageproof.runtime\n"
        "from runtime import Predictor\nfrom train.data.phantom import draw_slice\n"
        "import stageproof.train.data.phantom.slices as slices\n"
        "assert short is long and runtime is stageproof.runtime and Predictor is long.Predictor\n"
        "assert draw_slice is slices.draw_slice and long.__spec__.name == 'stageproof.runtime.predictor'\n"
    )
    for first in ("", "import stageproof.runtime\n", "import runtime.bundle.manifest\n"):
        done = subprocess.run([sys.executable, "-c", first + code], cwd=ROOT, text=True, capture_output=True)
        assert done.returncode == 0, done.stderr


def test_folders_and_modules_keep_within_their_sizes():
    done = subprocess.run([sys.executable, "docs/folder_sizes.py"], cwd=ROOT, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^runtime/images +\d+ modules", done.stdout, re.MULTILINE)


@pytest.mark.parametrize("command", [*MODULES, *PARTS, *RECIPES])
def test_help_needs_no_engine_and_fits_a_terminal(command, helps):
    shown = helps[command]
    assert (shown.status, shown.errors) == (0, "")
    assert not HEAVY & shown.modules
    assert "usage: python -m " in shown.text
    assert max(map(len, shown.text.splitlines())) <= 80


def test_the_base_install_is_numpy_and_pillow():
    required = [line for line in metadata("stageproof").get_all("Requires-Dist") if "extra ==" not in line]
    assert sorted(line.split(">=")[0].lower() for line in required) == ["numpy", "pillow"]
