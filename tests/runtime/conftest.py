"""What the runtime tests share: copies of the bundle that may be changed, and predictors that are loaded once."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runtime import Predictor, backends

SERVED = [name for name in backends.available() if {"onnx", "torchscript"} & set(backends.BACKENDS[name].FORMATS)]
"""Backends installed here that run what the fixture `bundle` holds."""


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    """A bundle of one's own: its manifest may be rewritten; an artifact is replaced, never written in place."""
    folder = tmp_path / "copy"
    shutil.copytree(bundle, folder, copy_function=os.link)
    manifest = folder / "manifest.json"
    text = manifest.read_bytes()
    manifest.unlink()
    manifest.write_bytes(text)
    return folder


@pytest.fixture
def edit(copy: Path) -> Callable[[Callable[[dict[str, Any]], object]], Path]:
    """Change the copy's manifest as an exporter could have written it: without the digest that shows tampering."""

    def change(how: Callable[[dict[str, Any]], object]) -> Path:
        path = copy / "manifest.json"
        data = json.loads(path.read_text(encoding="utf-8"))
        data.pop("sha256", None)
        how(data)
        path.write_text(json.dumps(data), encoding="utf-8")
        return copy

    return change


@pytest.fixture(scope="session", params=SERVED)
def predictor(request: pytest.FixtureRequest, bundle: Path) -> Predictor:
    """The bundle in each backend that serves it here."""
    return Predictor(bundle, backend=request.param)


@pytest.fixture(scope="session")
def onnx_predictor(bundle: Path) -> Predictor:
    """The bundle in ONNX Runtime, which every environment for these tests has."""
    return Predictor(bundle, backend="onnx")
