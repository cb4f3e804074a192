"""Where a class order comes from is in the manifest and in every artifact, and both must agree."""

from __future__ import annotations

import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from stageproof.export.data.comparison import phantoms
from stageproof.runtime.artifacts.metadata import read_metadata
from stageproof.runtime.bundle.verify import verified
from stageproof.runtime.errors import BundleError
from stageproof.runtime.labels import ALPHABETICAL, ASSUMED, LABELS
from stageproof.runtime.predictor import Predictor
from tests import tiny

TO = ("onnx", "pytorch")


@pytest.fixture(scope="module")
def state(tiny_checkpoint) -> dict[str, torch.Tensor]:
    """Its outputs are in clinical order."""
    return torch.load(tiny_checkpoint, weights_only=True)


@pytest.fixture(scope="module")
def assumed(tiny_checkpoint, tmp_path_factory) -> Path:
    bundle = tmp_path_factory.mktemp("assumed") / "bundle"
    tiny.make(tiny_checkpoint, bundle, TO)
    return bundle


def right(bundle: Path) -> float:
    """Share of the phantoms that the network was fitted to."""
    samples = phantoms(64)
    answers = Predictor(bundle, backend="onnx", guard=False).predict_batch([samples.read(at) for at in range(64)])
    return float(np.mean([one.label == LABELS[label] for one, label in zip(answers, samples.labels, strict=True)]))


@pytest.mark.parametrize("order", [LABELS, *itertools.islice(itertools.permutations(LABELS), 5, 24, 12)])
def test_a_stated_order_is_exported_and_answered_in(tmp_path, state, order):
    place = [LABELS.index(name) for name in order]  # outputs put in another order, and said so
    moved = {**state, "fc.weight": state["fc.weight"][place], "fc.bias": state["fc.bias"][place]}
    torch.save({"state_dict": moved, "class_to_idx": {name: at for at, name in enumerate(order)}}, tmp_path / "a.pth")
    said = tiny.make(tmp_path / "a.pth", tmp_path / "bundle", ("onnx",))
    assert f"class order: {', '.join(order)} (from class_to_idx in a.pth)" in said
    predictor = Predictor(tmp_path / "bundle")
    assert (predictor.model.labels, predictor.labels_from) == (order, "checkpoint")
    assert right(tmp_path / "bundle") > 0.5


def test_an_assumed_one_is_said_by_the_bundle_by_each_artifact_and_by_the_card(assumed):
    manifest = verified(assumed)
    assert (manifest.model.labels, manifest.labels_from) == (ALPHABETICAL, ASSUMED)
    for artifact in manifest.artifacts:
        found = read_metadata(assumed / artifact.file, artifact.format)
        assert found is not None
        assert found.labels_from == ASSUMED
    assert ASSUMED in (assumed / "MODEL_CARD.md").read_text(encoding="utf-8")
    with pytest.warns(RuntimeWarning, match="a lone artifact"):
        assert Predictor(assumed / "model.onnx").labels_from == ASSUMED
    assert right(assumed) < 0.4


@pytest.mark.parametrize("claim", ["run", "checkpoint", "option", None])
def test_a_manifest_cannot_claim_another_origin_than_its_artifacts(assumed, tmp_path, claim):
    bundle = Path(shutil.copytree(assumed, tmp_path / "bundle"))
    manifest = replace(verified(bundle), labels_from=claim)
    (bundle / "manifest.json").unlink()  # linked elsewhere, maybe
    (bundle / "manifest.json").write_text(manifest.to_json(), encoding="utf-8")
    with pytest.raises(BundleError, match=rf"has labels_from {ASSUMED}, but .* has {claim}"):
        verified(bundle)


def test_an_order_that_is_given_afterwards_builds_all_artifacts_again(assumed, tiny_checkpoint, tmp_path):
    bundle = Path(shutil.copytree(assumed, tmp_path / "bundle"))
    said = tiny.make(tiny_checkpoint, bundle, ("onnx",), labels=ALPHABETICAL)
    assert any("was exported with a class order assumed alphabetical" in line for line in said)
    manifest = verified(bundle)
    assert manifest.labels_from == "option"
    assert {artifact.format for artifact in manifest.artifacts} == set(TO)
    assert "assumed" not in (bundle / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert json.loads((bundle / "manifest.json").read_text())["labels_from"] == "option"
