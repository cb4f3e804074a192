"""Which engine serves, why each other was passed over, and lone artifacts without a bundle."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from stageproof.runtime import (
    BackendError,
    BackendUnavailable,
    BundleError,
    InputError,
    Prediction,
    Predictor,
    backends,
)
from stageproof.runtime.artifacts.verified_bytes import ModelFile
from stageproof.runtime.bundle.manifest import read_manifest
from stageproof.runtime.inference.selection import candidates, unusable_artifacts


def test_the_fastest_at_export_serves(edit: Callable) -> None:
    for fast in ("onnx", "openvino"):

        def rank(data: dict, fast: str = fast) -> None:
            for artifact in data["artifacts"]:
                for check in artifact["checks"]:
                    check["latency_ms"] = 1.0 if check["backend"] == fast else 9.0

        bundle = edit(rank)
        if backends.missing(fast) is None:
            predictor = Predictor(bundle)
            assert predictor.backend == fast
            assert predictor.explain()[0].endswith(f"in use, {predictor.engine}")
            others = predictor.explain()[1:]
            assert all("not tried: an earlier one is in use" in line or "contains code: " in line for line in others)
        assert candidates(read_manifest(bundle), None, None)[0].check.backend == fast


def test_what_does_not_run_is_passed_over_with_a_warning(
    copy: Path, edit: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = backends.load

    def rank(data: dict) -> None:
        for artifact in data["artifacts"]:
            for check in artifact["checks"]:
                check["latency_ms"] = 1.0 if artifact["format"] == "onnx" else 9.0

    edit(rank)

    def load(name: str, model: ModelFile, **settings: object) -> backends.Backend:
        if model.path.suffix == ".onnx":
            raise BackendError("no kernel image is available for execution on the device")
        return real(name, model, **settings)

    monkeypatch.setattr(backends, "load", load)
    with pytest.warns(
        RuntimeWarning, match=r"model\.onnx in .*does not run here: no kernel.*: python -m export --rebuild --out"
    ):
        predictor = Predictor(copy, trust_code=True)
    assert predictor.artifact == copy / "model.ts"
    assert any("does not run here: no kernel image" in line for line in predictor.explain())
    with pytest.raises(BackendError, match="no kernel image"):
        Predictor(copy, backend="onnx")


def test_an_engine_that_loads_and_cannot_run_is_found_at_load(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = backends.load

    def load(name: str, path: Path, **settings: object) -> backends.Backend:
        backend = real(name, path, **settings)
        if name == "onnx":
            backend.run = lambda images: np.full((len(images), 4), np.nan, np.float32)
        return backend

    monkeypatch.setattr(backends, "load", load)
    with pytest.raises(BackendError, match="returned logits that are not finite"):
        Predictor(copy, backend="onnx")


def test_a_named_backend_never_falls_back(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fastest = Predictor(copy).backend
    monkeypatch.setattr(backends, "missing", lambda name: "is not here" if name == fastest else None)
    with pytest.raises(BackendUnavailable, match=rf"'{fastest}' is not here\. Available here: "):
        Predictor(copy, backend=fastest)
    predictor = Predictor(copy)
    assert predictor.backend != fastest
    assert any(line.endswith("is not here") for line in predictor.explain())


def test_what_may_never_serve_is_explained_too(edit) -> None:
    def change(data) -> None:
        (artifact,) = [entry for entry in data["artifacts"] if entry["file"] == "model.ts"]
        artifact.update(checks=[], requires={"compute_capability": "8.9", "version": "1.7"})

    built = "built for compute capability 8.9, version 1.7"
    folder = edit(change)
    assert Predictor(folder).explain()[-1] == (
        f"model.ts (fp32): never used: no backend could check its parity at export; {built}"
    )
    with pytest.raises(BackendUnavailable, match=rf"No artifact of .* can run here\..*never used.*{built}\."):
        Predictor(folder, device="tensorrt")
    pixels = "uint8 (N, H, W, C)"
    folder = edit(lambda data: (change(data), data["artifacts"][1].update(takes=pixels)))
    manifest = read_manifest(folder)
    assert candidates(manifest, None, None)
    assert "takes uint8 (N, H, W, C), for programs without this library" in unusable_artifacts(manifest)[-1]
    with pytest.raises(BundleError, match=r"model\.ts has takes float32 .*, but .*manifest\.json has uint8"):
        Predictor(folder)


def test_what_the_bundle_does_not_have(bundle: Path) -> None:
    with pytest.raises(InputError, match=r"no artifact that passed parity for precision='int4'\. It has: fp32 in"):
        Predictor(bundle, precision="int4")
    with pytest.raises(InputError, match=r"There is no backend 'Onnx'\. Backends: "):
        Predictor(bundle, backend="Onnx")


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"device": "gpu"}, "device is 'gpu', expected one of 'cpu', 'cuda', 'tensorrt'"),
        ({"threads": 0}, "threads is 0, expected at least 1"),
        ({"abstain_below": 1.0}, "abstain_below is 1.0, expected 0 or more and below 1"),
        ({"abstain_below": float("nan")}, "abstain_below is nan"),
    ],
)
def test_arguments_that_make_no_sense(bundle: Path, arguments: dict, match: str) -> None:
    with pytest.raises(InputError, match=match):
        Predictor(bundle, **arguments)


@pytest.mark.parametrize("name", ["model.onnx", "model.safetensors"])
def test_a_lone_artifact_predicts_as_its_bundle(
    bundle: Path, other_formats: Path, tmp_path: Path, scan: Path, name: str
) -> None:
    os.link((bundle if (bundle / name).exists() else other_formats) / name, tmp_path / name)
    alone, whole = Predictor(tmp_path / name, guard=False), Predictor(bundle, guard=False)
    assert alone.model == whole.model
    assert alone.precision == "unknown"
    assert alone.explain() == []
    got, expected = alone.predict(scan), whole.predict(scan)
    assert got.label == expected.label
    assert got.probabilities == pytest.approx(dict(expected.probabilities), abs=1e-4)


def test_a_lone_artifact_says_that_it_has_no_guard(bundle: Path, scan: Path) -> None:
    with pytest.warns(
        RuntimeWarning, match=r"model\.onnx is a lone artifact, which has no guard: every image gets a"
    ) as caught:
        predictor = Predictor(bundle / "model.onnx")
    assert caught[0].filename == __file__
    for answer in (predictor.predict(scan), *predictor.predict_batch([scan, b"broken"])):
        assert answer.guard == "none"
        assert answer.to_dict()["guard"] == "none"
        assert Prediction.from_dict(json.loads(json.dumps(answer.to_dict()))) == answer
    assert all(one.guard == "none" for one in predictor.predict_study([scan]).slices)
    assert Predictor(bundle, guard=False).predict(scan).guard == "none", "the bundle has one, and it was turned off"
    assert set(Predictor(bundle).predict(scan).guard) > {"blank", "residual"}


def test_a_lone_file_that_makes_no_sense(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x", encoding="utf-8")
    with pytest.raises(
        BundleError, match=r"notes\.txt is not an artifact that this runtime reads \(\.onnx.*Give a bundle"
    ):
        Predictor(tmp_path / "notes.txt")
    with pytest.raises(InputError, match=r"is a single file, which has one precision"):
        Predictor(bundle / "model.onnx", precision="fp32")
    with pytest.raises(InputError, match=r"'torchscript' does not run \.onnx files\. These do: openvino, onnx"):
        Predictor(bundle / "model.onnx", backend="torchscript")
    with pytest.raises(InputError, match="has no golden images, which"):
        Predictor(bundle / "model.onnx", guard=False).self_test()


def test_weights_that_do_not_say_of_which_network(tmp_path: Path) -> None:
    """Those of a run are not an artifact yet."""
    save_file({"fc.weight": np.zeros((4, 8), np.float32)}, tmp_path / "model.safetensors")
    with pytest.raises(BackendError, match=r"no metadata with the architecture\. Export it: .*--to pytorch"):
        Predictor(tmp_path / "model.safetensors")


def test_an_onnx_file_of_somebody_else(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="it writes the stranger's file")
    helper, floats = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", floats, [None, 1])],
        [helper.make_tensor_value_info("y", floats, [None, 1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, tmp_path / "theirs.onnx")
    with pytest.raises(BundleError, match=r"has no metadata.*python -m export"):
        Predictor(tmp_path / "theirs.onnx")
