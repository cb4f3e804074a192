"""`python -m export` as a user types it."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace

import pytest
import torch

from stageproof.export.__main__ import main
from stageproof.export.formats import FORMATS, PRECISIONS
from stageproof.runtime.bundle.verify import verified
from stageproof.runtime.predictor import Predictor


def test_help_names_every_format_and_precision(helps):
    assert {*FORMATS, *PRECISIONS, "all"} <= set(re.findall(r"[a-z0-9-]+", helps["export"].text))


def test_a_bundle_holds_the_model_its_proof_and_its_card(firm_bundle, run):
    manifest = verified(firm_bundle)
    assert [a.file for a in manifest.artifacts] == ["model.onnx"]
    assert len(manifest.golden) == 8
    assert manifest.guard is not None
    assert (firm_bundle / "MODEL_CARD.md").read_text() == (run / "MODEL_CARD.md").read_text()
    assert {"torch", "onnx", "numpy"} <= set(manifest.provenance["packages"])
    assert manifest.provenance["dataset_digest"] == json.loads((run / "run.json").read_text())["data"]["digest"]
    for check in manifest.artifacts[0].checks:
        assert (check.parity["images"], check.parity["flipped"]) == (64, 0)
        assert check.parity["max_probability_difference"] <= 1e-4 == check.parity["tolerance"]
        assert check.parity["sensitivity"]["reference"] == check.parity["sensitivity"]["artifact"]
        assert check.latency_ms > 0
    report = json.loads((firm_bundle / "parity.json").read_text())
    assert report["model"] == manifest.model.digest
    assert {r["backend"] for r in report["artifacts"]["model.onnx"]["backends"]} == {
        check.backend for check in manifest.artifacts[0].checks
    }
    assert (firm_bundle / "logs" / "onnx.log").is_file()


def test_the_golden_images_are_replayed_in_every_backend(firm_bundle):
    for check in verified(firm_bundle).artifacts[0].checks:
        assert Predictor(firm_bundle, backend=check.backend, trust_code=True).self_test().passed


@pytest.mark.slow
def test_the_same_models_bundle_gains_artifacts_and_keeps_the_others(firm_bundle, run, tmp_path, capsys):
    out = tmp_path / "bundle"
    shutil.copytree(firm_bundle, out)
    before = verified(out)
    (kept,) = before.artifacts
    elsewhere = tuple(replace(check, latency_ms=1e6, machine="another machine") for check in kept.checks)
    text = replace(before, artifacts=(replace(kept, checks=elsewhere),)).to_json()
    (out / "manifest.json").unlink()
    (out / "manifest.json").write_text(text)
    status = main([str(run), "--to", "torch-export", "openvino", "--out", str(out), "--json"])
    printed = json.loads(capsys.readouterr().out)
    assert status == 0
    assert [a["file"] for a in printed["artifacts"]] == ["model.xml", "model.pt2"]
    manifest = verified(out)
    assert [a.file for a in manifest.artifacts] == ["model.onnx", "model.xml", "model.pt2"]
    again = manifest.artifacts[0]
    assert replace(again, checks=()) == replace(kept, checks=())
    for check, old in zip(again.checks, kept.checks, strict=True):
        # Timed anew, beside the others; all else was measured once.
        assert replace(check, latency_ms=0) == replace(old, latency_ms=0)
        assert 0 < check.latency_ms < 1e5
    printed_latency = {(a["file"], c["backend"]): c["latency_ms"] for a in printed["artifacts"] for c in a["checks"]}
    assert printed_latency == {(a.file, c.backend): c.latency_ms for a in manifest.artifacts[1:] for c in a.checks}
    assert "model.bin" in [document.file for document in manifest.documents]
    assert set(json.loads((out / "parity.json").read_text())["artifacts"]) == {"model.onnx", "model.xml", "model.pt2"}


@pytest.mark.slow
def test_another_models_bundle_is_replaced(firm_bundle, network, tmp_path):
    out, checkpoint = tmp_path / "bundle", tmp_path / "other.pth"
    shutil.copytree(firm_bundle, out)
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    state["fc.3.bias"] += 1.0
    torch.save(state, checkpoint)
    arguments = [str(checkpoint), "--image-size", "32", "--parity-images", "32", "--out", str(out), "--to"]
    assert main([*arguments, "torch-export"]) == 0
    assert [a.file for a in verified(out).artifacts] == ["model.pt2"]
    assert not (out / "model.onnx").exists()


@pytest.mark.slow
def test_what_fails_is_rejected_and_what_passes_is_kept(firm_bundle, run, tmp_path, capsys):
    """bf16 moves a probability here by more than float32's own tolerance."""
    out = tmp_path / "bundle"
    narrow = [str(run), "--to", "torch-export", "--out", str(out), "--flip-tolerance", "0.1", "--tolerance", "1e-4"]
    status = main([*narrow, "--precision", "fp32", "bf16"])
    printed = capsys.readouterr()
    assert status == 1
    assert re.search("ParityError: model.bf16.pt2 in .* changes a probability", printed.err)
    assert [a.file for a in verified(out).artifacts] == ["model.pt2"]
    assert sorted(path.name for path in (out / "rejected").iterdir()) == [
        "model.bf16.pt2.json",
        "model.bf16.pt2.rejected",
    ]
    assert all(len(line) < 80 or str(tmp_path.parent) in line for line in printed.out.splitlines()), printed.out
    assert "bf16" not in (out / "manifest.json").read_text()

    wider = [str(run), "--to", "torch-export", "--precision", "bf16", "--out", str(out), "--flip-tolerance", "0.1"]
    assert main([*wider, "--tolerance", "0.2"]) == 0
    (fp32, bf16) = verified(out).artifacts
    assert (fp32.precision, bf16.precision) == ("fp32", "bf16")
    assert (bf16.checks[0].parity["tolerance"], bf16.checks[0].parity["flip_tolerance"]) == (0.2, 0.1)
    assert not (out / "rejected").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "onxx"], "InputError: Unknown format 'onxx'. Did you mean 'onnx'?"),
        (["--precision", "int4"], "InputError: Unknown precision 'int4'. Did you mean 'int8'?"),
        (["--to", "torchscript", "--precision", "int8"], "InputError: torchscript does not support int8"),
    ],
)
def test_what_does_not_exist_is_refused_before_any_work(arguments, message, run, tmp_path, capsys):
    assert main([str(run), *arguments, "--out", str(tmp_path / "bundle")]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_bundle_path_that_is_a_file_is_refused(run, tmp_path, capsys):
    target = tmp_path / "bundle"
    target.write_text("mine")
    assert main([str(run), "--out", str(target)]) == 2
    assert f"{target} is a file, not a bundle. Give another --out; nothing was written." in capsys.readouterr().err
    assert target.read_text() == "mine"


def test_a_folder_that_is_no_bundle_is_refused(run, tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "me.jpg").write_bytes(b"mine")
    assert main([str(run), "--out", str(tmp_path / "photos")]) == 2
    assert "is a folder without manifest.json, not a bundle" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["me.jpg"]


def test_without_any_engine_nothing_is_built(run, tmp_path, capsys, monkeypatch):
    from stageproof.runtime import backends

    for name, module in backends.BACKENDS.items():
        if "onnx" in module.FORMATS:
            monkeypatch.setattr(module, "REQUIRES", {"no_such_engine": name})
    assert main([str(run), "--out", str(tmp_path / "bundle")]) == 2
    error = capsys.readouterr().err
    assert (
        "DependencyError: no installed backend can check onnx artifacts: 'openvino' needs the package no_such" in error
    )
    assert "pip install 'stageproof[openvino]'" in error
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_process_that_dies_costs_its_format_only(run, tmp_path, capsys, monkeypatch):
    from stageproof.export import run as pipeline

    real = pipeline.run_in_child_process

    def deadly(task, arguments, log):
        return real(die if arguments[1] == "onnx" else task, arguments, log)

    monkeypatch.setattr(pipeline, "run_in_child_process", deadly)
    out = tmp_path / "bundle"
    assert main([str(run), "--to", "onnx", "torch-export", "--out", str(out)]) == 1
    assert [a.file for a in verified(out).artifacts] == ["model.pt2"]
    assert "the export of model.onnx did not finish: its process ended with -9: about to die" in capsys.readouterr().err
    assert "about to die" in (out / "logs" / "onnx.log").read_text()


def die(*arguments):
    """Stands for an engine that takes its process down; runs in the process of the format."""
    import os
    import signal

    print("about to die", flush=True)  # noqa: T201
    os.kill(os.getpid(), signal.SIGKILL)


def test_the_size_shown_is_that_of_all_files_of_an_artifact(tmp_path, capsys):
    from stageproof.export.__main__ import _print_outcome
    from stageproof.export.formats.build import Outcome
    from stageproof.runtime.bundle.manifest import Artifact, Document

    (tmp_path / "model.xml").write_bytes(bytes(500_000))
    (tmp_path / "model.bin").write_bytes(bytes(2_000_000))
    artifact = Artifact("openvino", "fp32", "model.xml", "0" * 64, 500_000, ())
    outcome = Outcome(
        "openvino", "fp32", "model.xml", "pending", artifact=artifact, sidecars=(Document("model.bin", "0" * 64),)
    )
    _print_outcome(outcome, tmp_path)
    assert capsys.readouterr().out.split() == ["model.xml", "fp32", "2.5", "pending"]
