"""An export loads the code that it built itself, and of an older bundle only what it is told to trust."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from stageproof.export.bundle.rebuild import stale
from stageproof.export.engines.latency import timed
from stageproof.export.engines.runners import load
from stageproof.runtime.artifacts.verified_bytes import CODE
from stageproof.runtime.bundle.manifest import read_manifest
from stageproof.runtime.errors import BackendUnavailable, TrustError
from tests import tiny


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_bundle, tmp_path / "bundle")


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Formats that an engine was given."""
    from stageproof.runtime import backends

    seen: list[str] = []
    for module in backends.BACKENDS.values():
        real = module.load

        def watched(model, *, real=real, **settings):
            seen.append(backends.SUFFIXES[model.path.suffix])
            return real(model, **settings)

        monkeypatch.setattr(module, "load", watched)
    return seen


def test_a_rebuild_looks_at_code_only_where_it_is_trusted(bundle: Path, loaded: list[str], said: list[str]) -> None:
    with tiny.known():
        assert stale(bundle, 1) == []
    assert loaded
    assert not set(loaded) & set(CODE)
    for name in ("model.ts", "model.pt2"):
        assert f"{name}: not checked, since it contains code. To load it: --trust-code" in said
    with tiny.known():
        assert stale(bundle, 1, trust_code=True) == []
    assert {"torchscript", "torch-export"} <= set(loaded)


def test_code_that_was_there_before_is_not_timed(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest, given = read_manifest(bundle), []

    def apart(task, arguments, log):
        given.extend(one.file for one in arguments[1])
        return {}

    monkeypatch.setattr("export.engines.latency.run_in_child_process", apart)
    spec, log = manifest.model.input, bundle.parent / "log"
    everything = list(manifest.artifacts)
    assert timed(bundle, everything, manifest.golden, spec, 1, log, {"model.ts", "model.pt2"}) == everything
    assert set(given) == {one.file for one in everything} - {"model.ts", "model.pt2"}


def test_an_export_into_a_bundle_leaves_its_code_alone(
    tiny_bundle: Path, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stageproof.export import run as pipeline

    bundle = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    seen = []

    def watched(folder, artifacts, golden, spec, threads, log, foreign=frozenset()):
        seen.append(set(foreign))
        return list(artifacts)

    for trust_code, expected in ((False, {"model.ts", "model.pt2"}), (True, set())):
        with tiny.known(1.25):
            monkeypatch.setattr(pipeline, "timed", watched)
            pipeline.export(tiny.options(tiny_checkpoint, bundle, ("onnx",), trust_code=trust_code))
        assert seen.pop() == expected


@pytest.mark.parametrize(("backend", "name"), [("torchscript", "model.ts"), ("torch-export", "model.pt2")])
def test_an_engine_is_not_given_code_by_default(bundle: Path, backend: str, name: str) -> None:
    with pytest.raises(TrustError, match=rf"{name} contains code"):
        load(backend, bundle / name, "fp32", 1)
    assert load(backend, bundle / name, "fp32", 1, trust_code=True).metadata


def test_a_package_of_aotinductor_is_code(tmp_path: Path) -> None:
    (tmp_path / "model.aoti.pt2").write_bytes(b"PK")
    with pytest.raises((TrustError, BackendUnavailable), match="contains code: an AOTInductor package is machine code"):
        load("aotinductor", tmp_path / "model.aoti.pt2", "fp32", 1)
