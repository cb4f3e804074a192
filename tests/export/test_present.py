"""An export into a bundle that is there: what stays, what is built again, what is replaced, and what is said of it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from stageproof.export import run as pipeline
from stageproof.export.bundle.rebuild import stale
from stageproof.export.bundle.writer import kept_rejections, reject
from stageproof.runtime.artifacts.metadata import read_metadata
from stageproof.runtime.bundle.manifest import FILE, Manifest, read_manifest
from stageproof.runtime.bundle.verify import verified
from stageproof.runtime.errors import BundleError, CheckpointError, InputError
from stageproof.runtime.labels import LABELS
from stageproof.runtime.preprocess import InputSpec
from tests import tiny
from tests.records import logged

OWN = {"labels": tuple(reversed(LABELS)), "mean": (0.3, 0.2, 0.1), "std": (0.5, 0.25, 0.3), "image_size": 20}
"""What a checkpoint does not say of itself, none of it the default."""


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    shutil.copytree(tiny_bundle, tmp_path / "bundle")
    return tmp_path / "bundle"


@pytest.fixture(scope="module")
def own_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network trained with `OWN`."""
    size = OWN["image_size"]
    spec = InputSpec(size, size, 3, OWN["mean"], OWN["std"])
    return tiny.write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "own.pth", spec=spec)


@pytest.fixture(scope="module")
def own_bundle(own_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made of it with `OWN`. Do not change it: copy it."""
    out = tmp_path_factory.mktemp("own") / "bundle"
    tiny.make(own_checkpoint, out, ("onnx",), **OWN)
    return out


def outdated(bundle: Path) -> Manifest:
    """Write into the manifest that other engines checked the artifacts; it is returned as it was before."""
    manifest = read_manifest(bundle)
    artifacts = [
        replace(artifact, checks=tuple(replace(check, engine="an engine 0.1") for check in artifact.checks))
        for artifact in manifest.artifacts
    ]
    (bundle / FILE).write_text(replace(manifest, artifacts=tuple(artifacts)).to_json(), encoding="utf-8")
    return manifest


def rebuilt(bundle: Path, source: Path, **more) -> tuple[Manifest, list[str]]:
    with tiny.known(temperature=0.5), logged() as said:
        given = {"architecture": None, "image_size": None, "rebuild": True, **more}
        exported = pipeline.rebuild(tiny.options(source, bundle, (), **given))
    assert [outcome.status for outcome in exported.outcomes] == ["passed"] * len(exported.outcomes) != []
    return verified(bundle), said


def test_what_a_checkpoint_does_not_say_comes_from_the_bundle(own_bundle, own_checkpoint, tmp_path):
    bundle = tmp_path / "bundle"
    shutil.copytree(own_bundle, bundle)
    before = outdated(bundle)
    after, _ = rebuilt(bundle, own_checkpoint)
    assert after.model == before.model
    assert (after.model.labels, after.model.input.mean, after.model.input.height) == (
        OWN["labels"],
        OWN["mean"],
        OWN["image_size"],
    )
    assert after.labels_from == before.labels_from
    assert after.provenance["checkpoint"] == before.provenance["checkpoint"]
    for old, new in zip(before.golden, after.golden, strict=True):
        assert new.logits == pytest.approx(old.logits, abs=1e-4)
    assert after.guard == before.guard
    assert stale(bundle, 1) == []


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("architecture", "resnet50"),
        ("image_size", 224),
        ("labels", LABELS),
        ("mean", (0.485, 0.456, 0.406)),
        ("std", (0.229, 0.224, 0.225)),
    ],
)
def test_an_option_that_contradicts_the_bundle_is_refused(own_bundle, own_checkpoint, option, value):
    with pytest.raises(InputError, match=rf"--{option.replace('_', '-')} is .*, but .* was made with .*: leave"):
        rebuilt(own_bundle, own_checkpoint, **{option: value})


def test_options_that_say_the_same_are_fine(own_bundle, own_checkpoint, tmp_path):
    shutil.copytree(own_bundle, tmp_path / "bundle")
    outdated(tmp_path / "bundle")
    labels = tuple(label.replace("Demented", " dementia") for label in OWN["labels"])
    rebuilt(tmp_path / "bundle", own_checkpoint, **{**OWN, "labels": labels, "architecture": "tiny"})


@pytest.mark.parametrize("wrong", [{"mean": (0.485, 0.456, 0.406)}, {"height": 16, "width": 16}, {"std": (1.0,) * 3}])
def test_an_equally_wrong_reference_cannot_pass(own_bundle, own_checkpoint, tmp_path, monkeypatch, wrong):
    """The artifact would agree with it to the last bit; the golden images do not."""
    from stageproof.export.reference import source as reference_loading

    shutil.copytree(own_bundle, tmp_path / "bundle")
    before = outdated(tmp_path / "bundle")
    text = (tmp_path / "bundle" / FILE).read_bytes()
    real = reference_loading.reference_of

    def planted(bundle, *arguments):
        reference = real(bundle, *arguments)
        spec = replace(reference.info.input, **wrong)
        return replace(reference, info=replace(reference.info, input=spec))

    monkeypatch.setattr(reference_loading, "reference_of", planted)
    with pytest.raises(CheckpointError, match=r"logits of the golden images of .* differ by .* Nothing was built"):
        rebuilt(tmp_path / "bundle", own_checkpoint)
    assert (tmp_path / "bundle" / FILE).read_bytes() == text
    assert before.golden


def test_other_weights_are_refused(own_bundle, tmp_path):
    bundle, other = tmp_path / "bundle", tiny.write_checkpoint(tmp_path / "other.pth", seed=1)
    shutil.copytree(own_bundle, bundle)
    outdated(bundle)
    with pytest.raises(CheckpointError, match=r"other\.pth has other weights than .*bundle was made from"):
        rebuilt(bundle, other)


def test_rebuild_keeps_what_still_fits_and_the_bundles_own_temperature(bundle, tiny_checkpoint):
    """Also where the model was calibrated anew since: nothing is dropped."""
    manifest = read_manifest(bundle)
    changed = replace(manifest.artifacts[0].checks[0], engine="an engine 0.1")
    first = replace(manifest.artifacts[0], checks=(changed, *manifest.artifacts[0].checks[1:]))
    edited = replace(manifest, artifacts=(first, *manifest.artifacts[1:]))
    (bundle / FILE).write_text(edited.to_json(), encoding="utf-8")
    after, _ = rebuilt(bundle, tiny_checkpoint)
    assert after.model == manifest.model
    assert {artifact.file for artifact in after.artifacts} == {artifact.file for artifact in manifest.artifacts}


def test_after_a_new_temperature_every_artifact_is_built_with_it_and_none_is_gone(tiny_checkpoint, tmp_path):
    out = tmp_path / "bundle"
    tiny.make(tiny_checkpoint, out, ("onnx", "openvino"))
    said = tiny.make(tiny_checkpoint, out, ("torch-export",), temperature=0.6)
    manifest = verified(out)
    assert {artifact.file for artifact in manifest.artifacts} == {"model.onnx", "model.xml", "model.pt2"}
    assert manifest.model.temperature == 0.6
    for artifact in manifest.artifacts:
        assert read_metadata(out / artifact.file, artifact.format).model == manifest.model
        assert artifact.checks
    (line,) = [line for line in said if "was exported with temperature" in line]
    assert "temperature 1 and abstention threshold 0; the model now has temperature 0.6" in line
    assert "model.onnx, model.xml" in line
    assert said.index(line) < next(index for index, text in enumerate(said) if "building" in text)


def test_another_model_in_its_place_is_said_by_name_before_anything_is_built(bundle, tiny_checkpoint, tmp_path):
    files = [artifact.file for artifact in read_manifest(bundle).artifacts]
    said = tiny.make(tiny.write_checkpoint(tmp_path / "other.pth", seed=1), bundle, ("onnx",))
    at = next(index for index, line in enumerate(said) if "contains another model (weights " in line)
    assert all(file in said[at] for file in files)
    assert "To keep them, give another --out" in said[at]
    assert at < next(index for index, line in enumerate(said) if "building" in line)
    assert [artifact.file for artifact in verified(bundle).artifacts] == ["model.onnx"]

    said = tiny.make(tmp_path / "other.pth", bundle, ("openvino",), labels=LABELS)
    (line,) = [line for line in said if "contains another model" in line]
    assert "the same weights with other labels: MildDemented, ModerateDemented" in line
    assert [artifact.file for artifact in verified(bundle).artifacts] == ["model.xml"]


def test_the_same_model_again_keeps_all_and_says_nothing(bundle, tiny_checkpoint):
    before = read_manifest(bundle)
    said = tiny.make(tiny_checkpoint, bundle, ("onnx",), temperature=1.25)
    assert {a.file for a in verified(bundle).artifacts} == {a.file for a in before.artifacts}
    assert not [line for line in said if "another model" in line or "was exported with" in line]


def test_a_changed_bundle_is_refused_before_anything_is_built(bundle, tiny_checkpoint, monkeypatch):
    (bundle / "notes.txt").write_text("x")
    monkeypatch.setattr(pipeline, "staged", None)
    with pytest.raises(
        BundleError, match=r"notes\.txt is not listed in the manifest.* remove .* or give another --out"
    ):
        tiny.make(tiny_checkpoint, bundle, ("onnx",), temperature=1.25)


def test_a_guard_stays_where_its_training_slices_are_gone(bundle, tiny_checkpoint, said):
    before = read_manifest(bundle).guard
    with tiny.known(1.25, guard=lambda *given: (None, "the slices are gone")):
        pipeline.export(tiny.options(tiny_checkpoint, bundle, ("onnx",)))
    assert verified(bundle).guard == before
    assert [line for line in said if "keeps its present guard" in line]


def test_where_nothing_passes_the_bundle_stays_as_it_is(bundle, tiny_checkpoint):
    before = read_manifest(bundle)
    with tiny.known(1.25):
        exported = pipeline.export(tiny.options(tiny_checkpoint, bundle, ("onnx",), tolerance=1e-15))
    assert not exported.whole
    assert verified(bundle) == before
    assert (bundle / "rejected" / "model.onnx.rejected").is_file()


def test_no_rejected_file_outlives_a_success(tmp_path):
    """Of every artifact that has a file beside it, in every precision and with pixels."""
    for name in ("model.xml", "model.int8.xml", "model.pixels.xml", "model.onnx"):
        beside = f"{name.removesuffix('.xml')}.bin"
        bundle, folder = tmp_path / name / "old", tmp_path / name / "new"
        for path in (bundle, folder):
            path.mkdir(parents=True)
        for built in (name, beside, "model.ts"):
            (bundle / built).write_text(built)
        reject(bundle, name, json.dumps({}))
        reject(bundle, "model.ts", json.dumps({}))
        kept_rejections(bundle, folder, {name})
        assert sorted(path.name for path in (folder / "rejected").iterdir()) == ["model.ts.json", "model.ts.rejected"]
