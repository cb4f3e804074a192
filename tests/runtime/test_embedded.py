"""Decoders in a program that embeds Python, whose `sys.executable` is another Python's, or the program."""

from __future__ import annotations

import subprocess
import sys

import pytest

from stageproof.runtime.decoding import client


@pytest.mark.parametrize("name", ["python3", "server"])
def test_decoders_run_in_this_python_and_not_in_the_first_of_the_path(tmp_path, monkeypatch, name):
    other = tmp_path / name
    other.write_text("#!/bin/sh\nexit 1\n")
    other.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(other))
    found = client._python()
    shown = [found, "-c", "import sys; print(sys.version_info[:2], sys.base_exec_prefix)"]
    done = subprocess.run(shown, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{sys.version_info[:2]} {sys.base_exec_prefix}"
