"""The README's commands, word for word, in the README's order: what a newcomer types works as it stands."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands(block: str) -> list[str]:
    """The lines that follow a `$ ` prompt."""
    return re.findall(r"^\$ (.+)$", block, re.MULTILINE)


def console_blocks() -> list[str]:
    return re.findall(r"```console\n(.*?)```", README, re.DOTALL)


@pytest.fixture(scope="module")
def walk(tmp_path_factory) -> Path:
    """A folder in which the README's tested block has been run to its end."""
    block = README.partition("<!-- tested:")[2].partition("```console\n")[2].partition("```")[0]
    assert len(commands(block)) >= 5
    folder = tmp_path_factory.mktemp("newcomer")
    shutil.copy(ROOT / "scan.jpg", folder)
    for package in ("stageproof", "runtime", "train", "export", "benchmarks"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    # A newcomer's terminal knows nothing of this test run, whose workers would turn pytest-benchmark off.
    plain = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    plain.pop("PYTHONPATH", None)  # a checkout of its own
    environment = {**plain, "PATH": path}
    said = []
    for command in commands(block):
        done = subprocess.run(
            command, shell=True, cwd=folder, env=environment, text=True, capture_output=True, check=False
        )
        assert done.returncode == 0, f"$ {command}\n{done.stdout}\n{done.stderr}"
        said.append(f"$ {command}\n{done.stdout}")
    (folder / "said.txt").write_text("".join(said), encoding="utf-8")
    return folder


@pytest.mark.timeout(2400)
def test_the_default_run_learns_people_it_was_not_trained_on(walk):
    record = json.loads(next((walk / "runs").glob("*/run.json")).read_text())
    assert record["split"]["leaked"] == 0
    assert record["metrics"]["patients"] >= 16
    assert record["metrics"]["accuracy"] >= 0.5  # of four classes, none of which is more than 0.27 of the slices


def test_the_bundle_flips_no_decision(walk):
    manifest = json.loads((walk / "bundle" / "manifest.json").read_text())
    checks = [check for artifact in manifest["artifacts"] for check in artifact["checks"]]
    assert {check["backend"] for check in checks} >= {"onnx"}
    assert all(check["parity"]["flipped"] == 0 and check["parity"]["images"] >= 100 for check in checks)


def test_the_shipped_scan_is_answered(walk):
    """With one of the four classes, whichever: six epochs take it for its neighbour now and then."""
    answer = r"^scan\.jpg\n  \w*Demented \(CDR [\d.]+\)"
    assert re.search(answer, (walk / "said.txt").read_text(), re.MULTILINE)


def test_pytest_benchmark_wrote_its_json(walk):
    results = json.loads((walk / "out.json").read_text())
    assert len(results["benchmarks"]) >= 2


def test_every_command_the_readme_shows_exists():
    shown = [command for block in console_blocks() for command in commands(block)]
    modules = {match[1] for command in shown if (match := re.match(r"python -m ([\w.]+)", command))}
    assert modules >= {"train", "export", "runtime", "benchmarks"}
    targets = set(re.findall(r"`make (\w+)`", README))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert {"demo", "test", "lint", "docs"} <= targets <= set(re.findall(r"^(\w+):", makefile, re.MULTILINE))
    flags = {flag for command in shown for flag in re.findall(r"--[\w-]+", command)}
    helps = "".join(
        subprocess.run([sys.executable, "-m", module, "--help"], cwd=ROOT, text=True, capture_output=True).stdout
        for module in sorted(modules)
    )
    assert {flag for flag in flags if flag not in helps} <= {"--benchmark-json"}


def test_ci_says_the_readmes_words():
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert lines[-1] == "make lint test"
    assert "`make test`" in README
    assert "`make lint`" in README
