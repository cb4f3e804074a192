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


SHARED = {"python -m train": "runs/tiny", "python -m export --to onnx": "bundle"}
"""Command → what it writes. The fixtures `trained_run` and `bundle` have run these in processes, with short options."""
SHORTER = {
    "python -m train.evaluate": "--resamples 200",
    "python -m benchmarks --quick": "--samples 12 --only 'onnx fp32' --no-peers",
    "pytest benchmarks --benchmark-json out.json": (
        "--benchmark-max-time 0.1 --benchmark-min-rounds 2 -k 'latency or throughput or help'"
    ),
}
"""Command → options that make it short."""


@pytest.fixture(scope="module", params=["short", pytest.param("whole", marks=pytest.mark.slow)])
def walk(request, tmp_path_factory) -> Path:
    """A folder in which the README's tested block has been run to its end.

    whole: word for word. short: after what all tests share is in its place, with the options of `SHORTER`.
    """
    block = README.partition("<!-- tested:")[2].partition("```console\n")[2].partition("```")[0]
    assert len(commands(block)) >= 5
    assert {*SHARED, *SHORTER} <= set(commands(block))
    folder, short = tmp_path_factory.mktemp(request.param), request.param == "short"
    for fixture, place in zip(("trained_run", "bundle"), SHARED.values(), strict=True):
        if short:
            shutil.copytree(request.getfixturevalue(fixture), folder / place, copy_function=os.link)
    shutil.copy(ROOT / "scan.jpg", folder)
    for package in ("stageproof", "runtime", "train", "export", "serving", "benchmarks"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    # A newcomer's terminal knows nothing of this test run, whose workers would turn pytest-benchmark off.
    plain = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    plain.pop("PYTHONPATH", None)  # a checkout of its own
    environment = {**plain, "PATH": path}
    said = []
    for command in commands(block):
        if short and command in SHARED:
            continue
        shortened = f"{command} {SHORTER.get(command, '')}" if short else command
        done = subprocess.run(
            shortened, shell=True, cwd=folder, env=environment, text=True, capture_output=True, check=False
        )
        assert done.returncode == 0, f"$ {shortened}\n{done.stdout}\n{done.stderr}"
        said.append(f"$ {command}\n{done.stdout}")
    (folder / "said.txt").write_text("".join(said), encoding="utf-8")
    return folder


def metrics(walk: Path) -> dict:
    """Of the run that trained nobody whom it was evaluated on."""
    record = json.loads(next((walk / "runs").glob("*/run.json")).read_text())
    assert record["split"]["leaked"] == 0
    return record["metrics"]


@pytest.mark.timeout(2400)
@pytest.mark.parametrize("walk", [pytest.param("whole", marks=pytest.mark.slow)], indirect=True)
def test_the_default_run_learns_people_it_was_not_trained_on(walk):
    assert metrics(walk)["accuracy"] >= 0.5  # of four classes, none of which is more than 0.27 of the slices


def test_the_run_is_evaluated_on_people_it_was_not_trained_on(walk):
    assert metrics(walk)["patients"] >= 16
    assert (next((walk / "runs").glob("*/evaluation")) / "report.html").is_file()


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


def test_every_command_the_readme_shows_exists(helps):
    shown = [command for block in console_blocks() for command in commands(block)]
    modules = {match[1] for command in shown if (match := re.match(r"python -m ([\w.]+)", command))}
    assert modules >= {"train", "export", "runtime", "benchmarks"}
    targets = set(re.findall(r"`make (\w+)`", README))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert {"demo", "test", "lint", "docs"} <= targets <= set(re.findall(r"^(\w+):", makefile, re.MULTILINE))
    flags = {flag for command in shown for flag in re.findall(r"--[\w-]+", command)}
    known = "".join(helps[module].text for module in modules)
    assert {flag for flag in flags if flag not in known} <= {"--benchmark-json"}


def test_ci_says_the_readmes_words():
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert lines[-1] == "make lint test"
    assert "`make test`" in README
    assert "`make lint`" in README
