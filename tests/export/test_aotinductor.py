"""AOTInductor packages: compiled, gated, and never served by Predictor."""

from __future__ import annotations

import os
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from stageproof.export.formats import aotinductor
from stageproof.export.formats.build import produce
from stageproof.runtime.errors import ExportError


def test_without_a_compiler_it_says_what_it_needs(tiny_job, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    (outcome,) = produce(tiny_job, "aotinductor", ["fp32"])
    assert outcome.status == "missing"
    assert (
        "AOTInductor compiles C++, and no-such-compiler was not found. Install a compiler, or name it" in outcome.reason
    )


def test_it_compiles_where_nobody_else_can_put_anything(tiny_job, monkeypatch):
    """By itself PyTorch takes /tmp/torchinductor_USER, whoever made that."""
    import torch._inductor

    seen = []

    def compiled(*args, **settings):
        folder = Path(os.environ["TORCHINDUCTOR_CACHE_DIR"])
        seen.append((folder, folder.stat().st_mode & 0o777, os.environ["TRITON_CACHE_DIR"]))
        raise RuntimeError("that is enough")

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/before")
    monkeypatch.delenv("TRITON_CACHE_DIR", raising=False)
    monkeypatch.setattr(aotinductor.shutil, "which", lambda name: name)
    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", compiled)
    for _ in range(2):
        (outcome,) = produce(tiny_job, "aotinductor", ["fp32"])
        assert "that is enough" in outcome.reason
    assert [mode for _, mode, _ in seen] == [0o700, 0o700]
    assert seen[0][0] != seen[1][0]
    assert not any(folder.exists() for folder, _, _ in seen)
    assert (os.environ["TORCHINDUCTOR_CACHE_DIR"], "TRITON_CACHE_DIR" in os.environ) == ("/before", False)


def test_precision_is_read_from_the_packages_table(tmp_path):
    path = tmp_path / "model.aoti.pt2"
    row = "constants_info_[{0}].dtype = cached_torch_dtype_{1};\nconstants_info_[{0}].shape = {{{2}}};\n"
    rows = [row.format(0, "bfloat16", "64, 3, 7, 7"), row.format(1, "bfloat16", "64"), row.format(2, "float32", "4, 5")]
    with zipfile.ZipFile(path, "w") as package:
        package.writestr("m/data/x.wrapper.cpp", "".join(rows))
    assert aotinductor.inspect(path).layers == {"bf16": 1, "fp32": 1}
    with zipfile.ZipFile(path, "w") as package:
        package.writestr("m/data/x.wrapper.so", "")
    with pytest.raises(ExportError, match="has no table of constants"):
        aotinductor.inspect(path)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_package_passes_the_gate_and_is_not_for_predictor(job, precision):
    patient = replace(job, options=replace(job.options, flip_tolerance=0.1))
    (outcome,) = produce(patient, "aotinductor", [precision])
    assert outcome.status == "passed", outcome.reason
    assert outcome.found == {precision: 55}
    assert outcome.artifact.takes == "float32 (N, C, H, W), in a program over libtorch"
    assert [check.backend for check in outcome.artifact.checks] == ["aotinductor"]
    if precision == "fp32":
        assert outcome.reports[0]["max_probability_difference"] <= 1e-4
