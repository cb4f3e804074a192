"""`--help` of every command, each in a fork of one process that has imported what they share: an interpreter each would
take five times as long.

Every fork runs the module as `python -m` does, to the end of its interpreter. So what is seen is a process's own exit
status, both its outputs, and the modules that it loaded.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")
    for package in ("train", "export", "runtime", "serving", "benchmarks")
    for path in (ROOT / package).rglob("*.py")
    if 'if __name__ == "__main__":' in path.read_text(encoding="utf-8")
)
"""Every module that `python -m` runs."""
PARTS = ["benchmarks serving", "benchmarks train", "runtime.audit verify", "runtime.audit key"]
"""Commands of a command that have options of their own."""
RECIPES = [f"train --recipe {name}" for name in ("demo", "resnet50-two-stage", "resnet34-gray")]

_PROCESS = """
import atexit, json, os, runpy, sys
import numpy, tyro
folder, *commands = sys.argv[1:]

def leave_modules(path):
    with open(path, "w") as file:
        json.dump(sorted(sys.modules), file)

for number, command in enumerate(commands):
    for reader in ("stays", "leaves")[: 1 + (" " not in command)]:
        place = os.path.join(folder, f"{number}-{reader}")
        child = os.fork()
        if child == 0:
            if reader == "stays":
                output = os.open(place + ".out", os.O_WRONLY | os.O_CREAT)
            else:  # as in `--help | head -1`
                end, output = os.pipe()
                os.close(end)
            os.dup2(output, 1)
            os.dup2(os.open(place + ".err", os.O_WRONLY | os.O_CREAT), 2)
            atexit.register(leave_modules, place + ".modules")
            module, *words = command.split()
            sys.argv = ["x", *words, "--help"]
            runpy.run_module(module, run_name="__main__", alter_sys=True)
            sys.exit()
        with open(place + ".status", "w") as file:
            file.write(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])))
"""


@dataclass(frozen=True)
class Help:
    """What `python -m COMMAND --help` did in a terminal of 80 columns."""

    text: str
    errors: str
    status: int
    modules: frozenset[str]
    """Names of what was loaded when it ended."""
    status_without_reader: int | None
    """Exit status where nobody reads the output; None for a part of a command, of which that is not taken."""
    errors_without_reader: str


def write(folder: Path) -> int:
    """Run all commands; their results as files in `folder`. 0 if the process that forks ended well."""
    folder.mkdir()
    environment = {"COLUMNS": "80", "PATH": os.environ["PATH"], "TERM": "dumb"}
    command = [sys.executable, "-c", _PROCESS, str(folder), *MODULES, *PARTS, *RECIPES]
    # A pipe, as in a fork whose reader leaves: the stream asks once whether its file can seek.
    return subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=True).returncode


def read(folder: Path) -> dict[str, Help]:
    """Command, as words after `python -m` → what `write` kept of it."""
    return {command: _read(folder / str(at)) for at, command in enumerate([*MODULES, *PARTS, *RECIPES])}


def _read(place: Path) -> Help:
    def content(name: str) -> str:
        return place.with_name(f"{place.name}-{name}").read_text(encoding="utf-8")

    taken = place.with_name(f"{place.name}-leaves.status").exists()
    return Help(
        content("stays.out"),
        content("stays.err"),
        int(content("stays.status")),
        frozenset(json.loads(content("stays.modules"))),
        int(content("leaves.status")) if taken else None,
        content("leaves.err") if taken else "",
    )
