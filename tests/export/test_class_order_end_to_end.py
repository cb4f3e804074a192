"""`python -m export` of checkpoints that state their class order, contradict themselves or say nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from stageproof.export.__main__ import main
from stageproof.runtime.__main__ import main as predict
from stageproof.runtime.labels import ALPHABETICAL, ASSUMED, LABELS
from stageproof.runtime.predictor import Predictor

OPTIONS = ["--image-size", "32", "--parity-images", "32"]
INDICES = {name: at for at, name in enumerate(LABELS)}


def share_right(bundle: Path, slices: Path) -> float:
    """Of the slices that the network was fitted to, its outputs in clinical order."""
    files = sorted(slices.rglob("*.png"))[::4]
    answers = Predictor(bundle, backend="onnx").predict_batch(files)
    return float(np.mean([answer.label == file.parent.name for file, answer in zip(files, answers, strict=True)]))


@pytest.mark.slow
def test_a_dictionary_with_class_to_idx_in_clinical_order(network, slices, tmp_path, capsys):
    state = {f"module.{name}": tensor for name, tensor in network.state_dict().items()}
    torch.save({"class_to_idx": INDICES, "state_dict": state, "epoch": 3}, tmp_path / "best.pth")
    bundle = tmp_path / "bundle"
    assert main([str(tmp_path / "best.pth"), *OPTIONS, "--out", str(bundle), "--json"]) == 0
    out, err = capsys.readouterr()
    assert f"class order: {', '.join(LABELS)} (from class_to_idx in best.pth)" in err
    assert (json.loads(out)["labels"], json.loads(out)["labels_from"]) == (list(LABELS), "checkpoint")
    assert Predictor(bundle).labels_from == "checkpoint"
    assert share_right(bundle, slices) == 1.0


@pytest.mark.slow
def test_metadata_of_safetensors(network, slices, tmp_path):
    save_file(network.state_dict(), tmp_path / "best.safetensors", {"id2label": json.dumps(dict(enumerate(LABELS)))})
    assert main([str(tmp_path / "best.safetensors"), *OPTIONS, "--out", str(tmp_path / "bundle")]) == 0
    assert share_right(tmp_path / "bundle", slices) == 1.0


@pytest.mark.slow
def test_without_a_statement_every_command_says_that_it_is_assumed(network, slices, tmp_path, capsys):
    torch.save(network.state_dict(), tmp_path / "best.pth")
    bundle = tmp_path / "bundle"
    assert main([str(tmp_path / "best.pth"), *OPTIONS, "--out", str(bundle)]) == 0
    out, err = capsys.readouterr()
    order = ", ".join(ALPHABETICAL)
    assert f"class order {ASSUMED}: {order}. best.pth does not state it" in err
    assert f"classes {order}\n        {ASSUMED}" in out
    assert json.loads((bundle / "manifest.json").read_text())["labels_from"] == ASSUMED
    assert f"The order of the classes is {ASSUMED}" in (bundle / "MODEL_CARD.md").read_text()
    assert predict(["--bundle", str(bundle), str(next(slices.rglob("*.png")))]) == 0
    assert f"class order {ASSUMED}: {order}" in capsys.readouterr().err
    assert predict(["--bundle", str(bundle), "--info"]) == 0
    assert ASSUMED in capsys.readouterr().out
    # Labelled images speak against it, and are believed.
    command = [str(tmp_path / "best.pth"), *OPTIONS, "--out", str(tmp_path / "other"), "--parity-data", str(slices)]
    assert main(command) == 2
    assert f"--labels {' '.join(LABELS)}" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_a_contradiction_is_refused_with_both_orders_and_nothing_is_built(network, tmp_path, capsys):
    content = {"class_to_idx": INDICES, "state_dict": network.state_dict(), "classes": list(ALPHABETICAL)}
    torch.save(content, tmp_path / "best.pth")
    assert main([str(tmp_path / "best.pth"), *OPTIONS, "--out", str(tmp_path / "bundle")]) == 2
    error = capsys.readouterr().err
    assert f"class_to_idx in best.pth: {', '.join(LABELS)}" in error
    assert f"classes in best.pth: {', '.join(ALPHABETICAL)}" in error
    assert not (tmp_path / "bundle").exists()


def test_a_run_is_not_given_another_order(run, tmp_path, capsys):
    for source in (run, run / "model.safetensors"):
        assert main([str(source), "--labels", *ALPHABETICAL, "--out", str(tmp_path / "bundle")]) == 2
        assert f"was trained with {' '.join(LABELS)}" in capsys.readouterr().err
    assert not (tmp_path / "bundle").exists()
