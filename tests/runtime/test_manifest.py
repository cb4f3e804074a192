"""The manifest's written form: exact round trips, and a refusal with a reason for everything else."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stageproof.runtime.artifacts.metadata import read_description
from stageproof.runtime.bundle.manifest import Artifact, Check, Document, Golden, Manifest, ModelInfo, read_manifest
from stageproof.runtime.bundle.verify import contradiction
from stageproof.runtime.errors import BundleError
from stageproof.runtime.labels import FOUR_STAGES
from stageproof.runtime.preprocess import InputSpec
from stageproof.runtime.serialization.digests import UNSEALED, seal
from stageproof.runtime.study import StudyRule

MODEL = ModelInfo(
    "resnet50",
    "ab" * 32,
    ("MildDemented", "ModerateDemented", "NonDemented", "VeryMildDemented"),
    FOUR_STAGES,
    InputSpec.imagenet(96),
    temperature=1.7,
    abstain_below=0.4,
)
CHECK = Check("onnx", "onnxruntime 1.31.1", {"flipped": 0, "tolerance": 1e-4}, 12.5, "a CPU, 2 threads")
FULL = Manifest(
    MODEL,
    (
        Artifact("onnx", "fp32", "model.onnx", "01" * 32, 10, (CHECK,)),
        Artifact("tensorrt", "fp16", "engines/model.engine", "23" * 32, 7, (), {"compute_capability": "8.9"}),
        Artifact("onnx", "fp32", "model.pixels.onnx", "ab" * 32, 11, (CHECK,), takes="uint8 (N, H, W, 1 or 3)"),
    ),
    {"run": "tiny", "split": {"seed": 1}},
    guard=Document("guard.npz", "45" * 32),
    golden=(Golden("golden/0.png", "67" * 32, (0.1, -2.5, 3.0, 1e-9)),),
    documents=(Document("MODEL_CARD.md", "89" * 32),),
    labels_from="checkpoint",
)
PLAIN = Manifest(MODEL, FULL.artifacts[:1], {})
STUDIES = replace(PLAIN, model=replace(MODEL, study=StudyRule((0.1, -0.2, 0.3, -0.2), 1.4, 0.6)))


def written(manifest: Manifest, folder: Path) -> Path:
    (folder / "manifest.json").write_text(manifest.to_json(), encoding="utf-8")
    return folder


@pytest.mark.parametrize("manifest", [FULL, PLAIN, STUDIES], ids=["full", "plain", "studies"])
def test_round_trip_is_exact(manifest: Manifest, tmp_path: Path) -> None:
    assert read_manifest(written(manifest, tmp_path)) == manifest
    assert Manifest.from_dict(json.loads(json.dumps(manifest.to_dict())), "here") == manifest


def test_model_travels_alone() -> None:
    assert ModelInfo.from_json(json.dumps(MODEL.to_dict()), "model.onnx") == MODEL
    assert MODEL.to_dict()["clinical_order"] == ["NonDemented", "VeryMildDemented", "MildDemented", "ModerateDemented"]


def test_optional_keys_may_be_absent() -> None:
    data = json.loads(json.dumps(PLAIN.to_dict()))
    assert not {"guard", "golden", "documents", "labels_from"} & set(data)
    assert Manifest.from_dict(data, "here").guard is None


def test_a_manifest_without_its_own_digest_is_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps(PLAIN.to_dict()), encoding="utf-8")
    with pytest.raises(BundleError, match=r"manifest\.json lacks 'sha256', .* it was changed after export"):
        read_manifest(tmp_path)


def test_a_changed_byte_is_noticed_wherever_it_is(tmp_path: Path) -> None:
    """Bytes all over the file, the lowest bit flipped: never read, never another error."""
    path = written(FULL, tmp_path) / "manifest.json"
    text = path.read_bytes()
    for position in range(0, len(text), 3):
        path.write_bytes(text[:position] + bytes([text[position] ^ 1]) + text[position + 1 :])
        with pytest.raises(BundleError, match=r"manifest\.json"):
            read_manifest(tmp_path)


def test_a_changed_value_says_what_to_do(tmp_path: Path) -> None:
    path = written(FULL, tmp_path) / "manifest.json"
    path.write_text(path.read_text(encoding="utf-8").replace("1.7", "1.8"), encoding="utf-8")
    with pytest.raises(BundleError, match=r"was changed after export.*Copy the bundle again"):
        read_manifest(tmp_path)


def test_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"has no manifest\.json.*python -m export --out"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"\xff\xfe", "cannot be read"),
        (b"[]", "is a JSON list, expected an object"),
        (b"{}", "has schema None, this runtime reads 1"),
    ],
    ids=["empty", "cut", "deep", "binary", "list", "hollow"],
)
def test_other_content(tmp_path: Path, content: bytes, match: str) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(BundleError, match=match):
        read_manifest(tmp_path)


@pytest.mark.parametrize("schema", [2, 0, "1", None, True, [1]])
def test_other_schemas(schema: object) -> None:
    with pytest.raises(BundleError, match=r"this runtime reads 1\. Export again, or upgrade stageproof"):
        Manifest.from_dict({**FULL.to_dict(), "schema": schema}, "here")


Change = Callable[[dict[str, Any]], object]

WRONG: dict[str, tuple[Change, str]] = {
    "unknown key": (lambda d: d.update(gaurd={}), "keys that its schema does not have: 'gaurd'"),
    "labels from nowhere": (lambda d: d.update(labels_from="guess"), "labels_from is 'guess', expected one of run, "),
    "labels from no text": (lambda d: d.update(labels_from=["run"]), "'labels_from' is list, expected str"),
    "no model": (lambda d: d.pop("model"), "lacks 'model'"),
    "no artifacts": (lambda d: d.pop("artifacts"), "lacks 'artifacts'"),
    "no provenance": (lambda d: d.pop("provenance"), "lacks 'provenance'"),
    "artifacts no list": (lambda d: d.update(artifacts={}), "'artifacts' is dict, expected list"),
    "artifact no object": (lambda d: d.update(artifacts=[3]), "'artifacts' holds int, expected objects"),
    "no file": (lambda d: d["artifacts"][0].pop("file"), "lacks 'file'"),
    "file no text": (lambda d: d["artifacts"][0].update(file=3), "'file' is int, expected str"),
    "size no number": (lambda d: d["artifacts"][0].update(size_bytes=True), "'size_bytes' is bool, expected int"),
    "digest cut": (lambda d: d["artifacts"][0].update(sha256="01"), "not 64 hexadecimal digits"),
    "requires no text": (lambda d: d["artifacts"][0].update(requires={"a": 1}), "'requires' of model.onnx"),
    "checks no object": (lambda d: d["artifacts"][0].update(checks=["onnx"]), "'checks' holds str"),
    "latency NaN": (lambda d: d["artifacts"][0]["checks"][0].update(latency_ms=float("nan")), "'latency_ms' is nan"),
    "twice": (lambda d: d["artifacts"].append(d["artifacts"][0]), r"lists a file twice: model\.onnx"),
    "golden is an artifact": (lambda d: d["golden"][0].update(file="model.onnx"), r"twice: model\.onnx"),
    "golden cut": (lambda d: d["golden"][0].update(logits=[1.0]), r"golden/0\.png has 1 logits, expected one for each"),
    "golden NaN": (lambda d: d["golden"][0].update(logits=[1.0, 2.0, 3.0, float("inf")]), "not all finite"),
    "guard no object": (lambda d: d.update(guard="guard.npz"), "'guard' is str, expected dict"),
    "temperature 0": (lambda d: d["model"].update(temperature=0), "temperature is 0.0, expected a positive number"),
    "temperature huge": (lambda d: d["model"].update(temperature=10**400), "'temperature' is int, expected a finite"),
    "temperature text": (lambda d: d["model"].update(temperature="1"), "'temperature' is str"),
    "no temperature": (lambda d: d["model"].pop("temperature"), "lacks 'temperature'"),
    "abstains always": (lambda d: d["model"].update(abstain_below=1), "abstain_below is 1.0, expected 0 or more"),
    "one label": (lambda d: d["model"].update(labels=["NonDemented"]), "the classes of its clinical order"),
    "label twice": (
        lambda d: d["model"].update(labels=["NonDemented"] * 4),
        "the classes of its clinical order",
    ),
    "strange label": (
        lambda d: d["model"].update(labels=["NonDemented", "Cat"]),
        "the classes of its clinical order",
    ),
    "label no text": (lambda d: d["model"].update(labels=["NonDemented", 4]), "expected a list of class names"),
    "unknown key of the model": (lambda d: d["model"].update(label=[]), "model has keys .*: 'label'"),
    "unknown key of an artifact": (lambda d: d["artifacts"][1].update(gpu=1), r"artifacts\[1\] has keys .*: 'gpu'"),
    "unknown key of a check": (lambda d: d["artifacts"][0]["checks"][0].update(ok=1), r"checks\[0\] has keys .*: 'ok'"),
    "unknown key of the guard": (lambda d: d["guard"].update(off=True), "guard has keys .*: 'off'"),
    "unknown key of a golden image": (lambda d: d["golden"][0].update(skip=1), r"golden\[0\] has keys .*: 'skip'"),
    "no abstention": (lambda d: d["model"].pop("abstain_below"), "lacks 'abstain_below'"),
    "another clinical order": (lambda d: d["model"]["clinical_order"].reverse(), "in clinical order"),
    "digest of the weights cut": (lambda d: d["model"].update(digest="ab"), "'digest' is 'ab', expected 64"),
    "no requires": (lambda d: d["artifacts"][0].pop("requires"), "lacks 'requires'"),
    "tolerance no number": (
        lambda d: d["artifacts"][0]["checks"][0]["parity"].update(tolerance="wide"),
        "'tolerance' is str",
    ),
    "an escape for the terminal": (lambda d: d["artifacts"][0].update(precision="fp32\x1b[2J"), "control characters"),
    "input cut": (lambda d: d["model"]["input"].pop("std"), "missing keys: std"),
}


@pytest.mark.parametrize(("change", "match"), WRONG.values(), ids=WRONG)
def test_missing_and_impossible_values_are_named(change: Change, match: str) -> None:
    data = json.loads(json.dumps(FULL.to_dict()))
    change(data)
    with pytest.raises(BundleError, match=match):
        Manifest.from_dict(data, "bundle/manifest.json")


@pytest.mark.parametrize("key", ["artifacts", "golden", "documents"])
@pytest.mark.parametrize(
    "file",
    ["../model.onnx", "/etc/passwd", "a/../../b", "C:model.onnx", "a\\b", "", ".", "a//b", "a\0b", "a\nb", "a\x1b[2J"],
)
def test_a_path_that_could_leave_the_bundle_is_refused(key: str, file: str) -> None:
    data = json.loads(json.dumps(FULL.to_dict()))
    data[key][0]["file"] = file
    with pytest.raises(BundleError, match=r"is not a relative path inside the bundle\. Not loaded"):
        Manifest.from_dict(data, "here")


@pytest.mark.parametrize("file", ["manifest.json", "Manifest.json", "model.sig", "rejected/x", "logs/onnx.log"])
def test_a_name_with_another_use_is_refused(file: str) -> None:
    data = json.loads(json.dumps(FULL.to_dict()))
    data["documents"][0]["file"] = file
    with pytest.raises(BundleError, match=r"that may be listed: manifest\.json, model\.sig, .*\. Not loaded"):
        Manifest.from_dict(data, "here")


@pytest.mark.parametrize("other", ["MODEL.ONNX", "Model.onnx"])
def test_two_names_that_differ_in_case_only_are_one(other: str) -> None:
    data = json.loads(json.dumps(FULL.to_dict()))
    data["documents"][0]["file"] = other
    with pytest.raises(BundleError, match=rf"twice: {other} \(as model\.onnx\)"):
        Manifest.from_dict(data, "here")


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ('"schema": 1,', '"schema": 1, "schema": 1,', "has the key 'schema' twice in one object"),
        ('"height": 96,', '"height": 96, "height": 224,', "has the key 'height' twice in one object"),
        ('"flipped": 0', '"flipped": NaN', "has NaN, which is not valid JSON"),
        ('"flipped": 0', '"flipped": -Infinity', "has -Infinity, which is not valid JSON"),
        ('"flipped": 0', '"flipped": 1e999', "has the number 1e999, beyond the range of float64"),
    ],
)
def test_what_parsers_read_differently_is_refused(tmp_path: Path, old: str, new: str, match: str) -> None:
    """Also where the digest was computed again."""
    path = written(FULL, tmp_path) / "manifest.json"
    text = path.read_text(encoding="utf-8").replace(json.loads(FULL.to_json())["sha256"], UNSEALED)
    assert old in text
    path.write_text(seal(text.replace(old, new, 1)), encoding="utf-8")
    with pytest.raises(BundleError, match=match):
        read_manifest(tmp_path)


def test_only_a_regular_file_of_a_sensible_size_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "manifest.json"
    os.mkfifo(path)
    with pytest.raises(BundleError, match=r"manifest\.json is not a regular file"):
        read_manifest(tmp_path)
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(BundleError, match=r"manifest\.json is not a regular file"):
        read_manifest(tmp_path)
    path.unlink()
    monkeypatch.setattr("runtime.bundle.manifest.LARGEST", 100)
    with pytest.raises(BundleError, match=r"bytes, expected at most 100"):
        read_manifest(written(FULL, tmp_path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"slope": -1.0}, "slope is -1.0, expected 0 or more"),
        ({"abstain_below": 1.0}, "abstain_below is 1.0"),
        ({"intercepts": [0.0, 0.0]}, "not a list of 4 finite numbers, one per label"),
        ({"intercepts": [0.0, 0.0, 0.0, "0"]}, "not a list of 4 finite numbers"),
        ({"more": 1}, "has keys that its schema does not have: 'more'"),
    ],
)
def test_a_rule_for_studies_that_makes_no_sense_is_refused(change: dict[str, Any], message: str) -> None:
    data = json.loads(json.dumps(STUDIES.to_dict()))
    data["model"]["study"].update(change)
    with pytest.raises(BundleError, match=message):
        Manifest.from_dict(data, "here")


@pytest.mark.parametrize("inside", [MODEL, STUDIES.model])
def test_a_rule_for_studies_must_be_in_manifest_and_artifact_alike(inside: ModelInfo) -> None:
    found = read_description(json.dumps(inside.to_dict()), "model.onnx")
    for manifest in (PLAIN, STUDIES):
        different = contradiction(found, manifest, manifest.artifacts[0])
        assert (different is None) == (manifest.model == inside)
        assert different is None or different[0] == "study"


def test_the_head_is_recorded_where_it_is_not_the_default():
    assert "head" not in MODEL.to_dict()
    assert MODEL.network.head == "two-layer"
    other = replace(MODEL, head="linear")
    assert other.to_dict()["head"] == "linear"
    assert ModelInfo.from_exact(other.to_dict(), "here") == other
    assert other.network.head == "linear"
    assert ModelInfo.from_exact({**MODEL.to_dict(), "head": "two-layer"}, "here") == MODEL, "the default is not another"
    with pytest.raises(BundleError, match=r"here: 'head' is 'deep', expected linear or two-layer"):
        ModelInfo.from_exact({**MODEL.to_dict(), "head": "deep"}, "here")
