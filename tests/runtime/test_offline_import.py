"""Engines are imported without their telemetry."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUNDLE = ROOT / "tests" / "data" / "bundle-0.1"
PREDICTED = f"""
from stageproof.runtime import Predictor
assert Predictor({str(BUNDLE)!r}, backend="onnx").self_test().passed
"""
PLAIN = f"""
import onnxruntime
onnxruntime.InferenceSession({str(BUNDLE / "model.onnx")!r}, providers=["CPUExecutionProvider"])
"""


def written(code: str, home: Path, **environment: str) -> list[str]:
    """Files in the home folder of a process that runs `code`; without CI and the like, which switch telemetry off."""
    home.mkdir()
    given = {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": str(ROOT), **environment}
    subprocess.run([sys.executable, "-B", "-c", code], env=given, check=True, cwd=home)
    return sorted(path.name for path in home.rglob("*") if path.is_file())


def test_onnx_runtime_leaves_no_identifier_of_the_machine(tmp_path):
    assert written(PREDICTED, tmp_path / "home") == []


def test_a_user_may_switch_it_on(tmp_path):
    """Also shows that the test above can fail: what onnxruntime does by itself is what the user gets."""
    alone = written(PLAIN, tmp_path / "alone")
    asked = written(PREDICTED, tmp_path / "asked", ORT_DISABLE_TELEMETRY="0")
    assert ("deviceid" in asked) == ("deviceid" in alone)


@pytest.mark.parametrize("package", ["runtime", "train", "export", "serving"])
def test_no_other_module_imports_it(package):
    found = [
        str(path.relative_to(ROOT))
        for path in (ROOT / package).rglob("*.py")
        if re.search(r"^\s*import onnxruntime", path.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert found == []
